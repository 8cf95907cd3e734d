"""What was measured of one model on files with known middles, as `calibration.json` beside its weights.

A folder holds `calibration.json`; beside `NAME.gguf` lies `NAME.calibration.json`. A model without a file of its own
that the package knows by its fingerprint takes the one in the package.

Turns a candidate's features into the probability that it is right, and a length into the bias of the model's
confidence at that length. `tools.calibration` fits the numbers; here they are read, checked and applied. Knows no
tensors and no text.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self

from dgemma_engine.checkpoint.features import LATER_NAMES, NAMES, Features
from dgemma_engine.durable_files import write_whole
from dgemma_engine.errors import CheckpointError

FILE_NAME = "calibration.json"
SHIPPED = Path(__file__).parents[1] / "calibrations"
"""Folder with calibrations of models that are fetched, not shipped."""

_WHOLE_FILES = ("config.json", "infill.json", "tokenizer.json")
_EDGE_BYTES = 65_536
_SAMPLE_BYTES = 4_096
_NUM_SAMPLES = 16
_MAX_HEADER_BYTES = 100_000_000
_MAX_LOG_ODDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a calibration comes from; nothing is computed from it.

    Attributes:
        date: day it was made, ISO 8601.
        commit: of the code that made it; empty where it is not known.
        num_files: files the holes were cut from.
        num_holes: holes it was fitted on.
        file_share: share of the files at hand that were used, 0 to 1; the rest may judge the result.
    """

    date: str
    commit: str
    num_files: int
    num_holes: int
    file_share: float

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.date)
        except (TypeError, ValueError):
            raise CheckpointError(f"{self.date=} must be a day such as 2026-01-31") from None
        if not (_is_count(self.num_files) and _is_count(self.num_holes)):
            raise CheckpointError(f"{self.num_files=} and {self.num_holes=} must be whole numbers of at least 1")
        _check_range("file_share", self.file_share, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Numbers fitted on one model.

    Attributes:
        fingerprint: of that model, by `fingerprint`; empty in `default()`.
        length_bias: pairs of a length in tokens and the model's bias there in nats, ascending; empty is no bias.
        prior_weight: weight of the log of the length prior in the search for a length; 0 trusts the model's
            confidence alone, large takes the commonest length whatever the model says.
        weights: pairs of a feature's name and its weight, in the order of `features.NAMES`; None if never fitted.
        intercept: log-odds of being right where all features are 0.
        threshold: a candidate whose probability is below it is not shown; 0 shows all, 1 shows none.
        provenance: where the numbers come from; None in `default()`.
    """

    fingerprint: str
    length_bias: tuple[tuple[int, float], ...]
    prior_weight: float
    weights: tuple[tuple[str, float], ...] | None
    intercept: float
    threshold: float
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        lengths = [length for length, _ in self.length_bias]
        if not all(map(_is_count, lengths)) or lengths != sorted(set(lengths)):
            raise CheckpointError(f"length_bias: {lengths=} must be ascending whole numbers of at least 1")
        for length, bias in self.length_bias:
            _check_range(f"length_bias at {length}", bias, -math.inf, math.inf)
        _check_range("prior_weight", self.prior_weight, 0.0, math.inf)
        _check_range("threshold", self.threshold, 0.0, 1.0)
        _check_range("intercept", self.intercept, -math.inf, math.inf)
        names = tuple(name for name, _ in self.weights or ())
        if self.weights is not None and names != NAMES:
            raise CheckpointError(f"weights: {names=} are not this version's {NAMES}")
        for name, weight in self.weights or ():
            _check_range(f"weights.{name}", weight, -math.inf, math.inf)

    @classmethod
    def default(cls) -> Self:
        """The calibration of a model that was not measured: no bias, every candidate shown, no weights."""
        return cls(fingerprint="", length_bias=(), prior_weight=1.0, weights=None, intercept=0.0, threshold=0.0)

    @classmethod
    def load(cls, model: Path, fingerprint: str, *, shipped: Path = SHIPPED) -> Self:
        """Reads the calibration beside a model, else the package's, else returns `default()`.

        Args:
            model: its folder or GGUF file.
            fingerprint: of the model.
            shipped: folder with the package's calibrations.

        Raises:
            CheckpointError: the file is damaged, of another version or of another model; the message says which, and
                what to do.
        """
        path = calibration_path(model)
        if not path.exists():
            return cls._shipped(fingerprint, shipped) or cls.default()
        return cls.read(path, fingerprint, remedy=f"run: dgemma-engine calibrate {model} FILES")

    @classmethod
    def read(cls, path: Path, fingerprint: str, *, remedy: str) -> Self:
        """Reads a calibration.

        Args:
            path: its file.
            fingerprint: of the model.
            remedy: what the user can do where it cannot be used; part of the message.

        Raises:
            CheckpointError: the file is not there, damaged, of another version or of another model.
        """
        try:
            calibration = cls._from_json(json.loads(path.read_text(encoding="utf-8")))
        # A whole number in JSON has no limit; `math.isfinite` raises OverflowError for one above the largest float.
        except (OSError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{path}: {error}; {remedy}") from error
        if calibration.fingerprint != fingerprint:
            models = f"{calibration.fingerprint[:12]!r}, not {fingerprint[:12]!r}"
            raise CheckpointError(f"{path}: belongs to another model ({models}); {remedy}")
        return calibration

    def save(self, model: Path) -> None:
        """Writes the calibration beside a model; a failed write leaves the old file whole.

        Raises:
            OSError: the folder cannot be written.
        """
        assert self.fingerprint, "the default belongs to no model"
        values = asdict(self) | {"weights": None if self.weights is None else dict(self.weights)}
        write_whole(calibration_path(model), (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())

    def bias(self, length: int) -> float:
        """Returns the bias in nats of the confidence at `length` tokens: subtract it to compare lengths."""
        return interpolated_bias(self.length_bias, length)

    def probability(self, features: Features) -> float:
        """Returns the probability that a candidate is right, between 0 and 1 and never either.

        Without weights it is the geometric mean probability of a token, of middle and suffix in equal parts (PILL): it
        puts candidates in an order, but is not calibrated, and comes out high where there is no suffix.
        """
        if self.weights is None:
            value = 0.5 * features.middle_mean + 0.5 * features.suffix_mean
        else:
            value = self.intercept + sum(weight * getattr(features, name) for name, weight in self.weights)
        # sigmoid(30) differs from 1 by 1e-13, which a double holds. `max` returns its first argument if the other
        # is NaN: such a candidate is never right.
        value = min(_MAX_LOG_ODDS, max(-_MAX_LOG_ODDS, value))
        if self.weights is None:
            return min(1.0 - math.exp(-_MAX_LOG_ODDS), math.exp(value))
        return 1.0 / (1.0 + math.exp(-value))

    @classmethod
    def _shipped(cls, fingerprint: str, folder: Path) -> Self | None:
        for path in sorted(folder.glob("*.json")):
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["fingerprint"] == fingerprint:
                return cls._from_json(values)
        return None

    @classmethod
    def _from_json(cls, values: Any) -> Self:
        _check_names("the file", values, {field.name for field in fields(cls)})
        bias = values["length_bias"]
        if not isinstance(bias, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in bias):
            raise CheckpointError("length_bias must be a list of pairs of a length and a bias")
        if not isinstance(values["fingerprint"], str):
            raise CheckpointError(f"fingerprint={values['fingerprint']!r} must be a string")
        parts: dict[str, Any] = {"length_bias": tuple(map(tuple, bias))}
        if (weights := values["weights"]) is not None:
            weights = dict.fromkeys(LATER_NAMES, 0.0) | weights if isinstance(weights, dict) else weights
            _check_names("weights", weights, set(NAMES))
            parts["weights"] = tuple((name, weights[name]) for name in NAMES)
        if (provenance := values["provenance"]) is not None:
            _check_names("provenance", provenance, {field.name for field in fields(Provenance)})
            parts["provenance"] = Provenance(**provenance)
        return cls(**(values | parts))


def calibration_path(model: Path) -> Path:
    """Returns where the calibration of a model folder or a GGUF file lies."""
    return model / FILE_NAME if model.is_dir() else model.with_name(f"{model.stem}.{FILE_NAME}")


def interpolated_bias(curve: tuple[tuple[int, float], ...], length: int) -> float:
    """Returns the bias at `length`: linear in its logarithm between the curve's lengths, flat outside, 0 without any.

    Args:
        curve: pairs of a length in tokens and a bias in nats, ascending.
        length: in tokens, at least 1.
    """
    below = [point for point in curve if point[0] <= length]
    above = [point for point in curve if point[0] >= length]
    if not below or not above:
        return (below[-1:] or above[:1] or [(length, 0.0)])[0][1]
    (low, low_bias), (high, high_bias) = below[-1], above[0]
    share = math.log(length / low) / math.log(high / low) if high > low else 0.0
    return low_bias + share * (high_bias - low_bias)


def fingerprint(model: Path) -> str:
    """Returns a name for a model, 64 hexadecimal digits, which changes when the model does.

    Hashes `config.json`, `infill.json` and `tokenizer.json` of a folder whole; of each safetensors file name, size,
    header, both ends of the data and sixteen places between them, since fine-tuning may leave the first and the last
    tensor as they were; of a GGUF file the same, but no name. So it reads 200 kB and the header of a file, however
    large; a changed byte between the samples goes unseen.

    Args:
        model: a folder or a GGUF file.

    Raises:
        CheckpointError: a folder holds no safetensors file, or a file cannot be read.
    """
    digest = sha256()
    try:
        if not model.is_dir():
            _add_sampled(digest, model, "gguf")
            return digest.hexdigest()
        for name in _WHOLE_FILES:
            content = (model / name).read_bytes() if (model / name).exists() else b""
            digest.update(f"{name} {len(content)}\n".encode() + content)
        weights = sorted(model.glob("*.safetensors"))
        for path in weights:
            _add_sampled(digest, path, path.name)
    except OSError as error:
        raise CheckpointError(f"{model}: cannot be read ({error}); check its permissions") from error
    if not weights:
        raise CheckpointError(f"{model}: no *.safetensors here; download the whole model folder again")
    return digest.hexdigest()


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def _add_sampled(digest: _Hash, path: Path, name: str) -> None:
    size_bytes = path.stat().st_size
    digest.update(f"{name} {size_bytes}\n".encode())
    with path.open("rb") as file:
        header_bytes = 0 if name == "gguf" else 8 + int.from_bytes(file.read(8), "little")
        for start, num_bytes in _sampled_ranges(header_bytes, size_bytes):
            file.seek(start)
            digest.update(file.read(num_bytes))


def _sampled_ranges(header_bytes: int, size_bytes: int) -> list[tuple[int, int]]:
    """Returns (start, bytes) of what stands for a file of weights: its header, both ends of the data, and samples."""
    data_start = min(header_bytes, 8 + _MAX_HEADER_BYTES, size_bytes)
    step = max(1, (size_bytes - data_start) // (_NUM_SAMPLES + 1))
    samples = [(data_start + step * number, _SAMPLE_BYTES) for number in range(1, _NUM_SAMPLES + 1)]
    ends = [(data_start, _EDGE_BYTES), (max(data_start, size_bytes - _EDGE_BYTES), _EDGE_BYTES)]
    return [(0, data_start), *ends, *samples]


def _check_names(what: str, values: Any, names: set[str]) -> None:
    if not isinstance(values, dict):
        raise CheckpointError(f"{what} must be a JSON object, got {type(values).__name__}")
    if values.keys() != names:
        missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
        raise CheckpointError(f"{what} is of another version: {missing=}, {unknown=}")


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise CheckpointError(f"{name}={value!r} must be a finite number between {low:g} and {high:g}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
