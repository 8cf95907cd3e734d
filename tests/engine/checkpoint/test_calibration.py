"""`calibration.json` good and bad, the probability and the bias it stands for, and which model it belongs to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.checkpoint.calibration import Calibration, Provenance, fingerprint, interpolated_bias
from dgemma_engine.checkpoint.features import LATER_NAMES, NAMES, Features
from dgemma_engine.errors import CheckpointError

PROVENANCE = Provenance(date="2026-01-31", commit="0123abc", num_files=40, num_holes=800, file_share=0.5)
FITTED = Calibration(
    fingerprint="f" * 64,
    length_bias=((1, -0.5), (4, 0.25), (16, 0.75)),
    prior_weight=0.25,
    weights=tuple((name, 0.1 * number) for number, name in enumerate(NAMES)),
    intercept=-1.5,
    threshold=0.3,
    provenance=PROVENANCE,
)
FEATURES = Features(middle_mean=-0.4, middle_sum=-2.0, suffix_mean=-0.2, agreement=1.0, length=1.8)


def test_save_and_load(tmp_path: Path) -> None:
    FITTED.save(tmp_path)
    assert Calibration.load(tmp_path, "f" * 64) == FITTED
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


def test_a_gguf_file_has_its_calibration_beside_it(tmp_path: Path) -> None:
    model = tmp_path / "some.gguf"
    model.write_bytes(b"GGUF")
    FITTED.save(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.calibration.json", "some.gguf"]
    assert Calibration.load(model, "f" * 64) == FITTED
    assert Calibration.load(tmp_path / "other.gguf", "f" * 64, shipped=tmp_path / "none") == Calibration.default()


def test_a_fetched_model_takes_the_calibration_of_the_package_until_it_has_its_own(tmp_path: Path) -> None:
    shipped, model = tmp_path / "shipped", tmp_path / "model"
    shipped.mkdir()
    model.mkdir()
    FITTED.save(shipped)
    (shipped / "calibration.json").rename(shipped / "some.json")
    assert Calibration.load(model, "f" * 64, shipped=shipped) == FITTED
    assert Calibration.load(model, "e" * 64, shipped=shipped) == Calibration.default()
    replace(FITTED, threshold=0.7).save(model)
    assert Calibration.load(model, "f" * 64, shipped=shipped).threshold == 0.7


def test_calibration_without_weights_or_provenance_comes_back(tmp_path: Path) -> None:
    lengths_only = replace(Calibration.default(), fingerprint="f" * 64, length_bias=((2, 0.5),))
    lengths_only.save(tmp_path)
    assert Calibration.load(tmp_path, "f" * 64) == lengths_only


def test_folder_without_the_file_gets_the_default(tmp_path: Path) -> None:
    calibration = Calibration.load(tmp_path, "f" * 64)
    assert calibration == Calibration.default()
    assert (calibration.bias(7), calibration.prior_weight, calibration.threshold) == (0.0, 1.0, 0.0)
    assert calibration.probability(FEATURES) == pytest.approx(math.exp(-0.3))


def test_probability_is_the_sigmoid_of_the_weighted_sum() -> None:
    log_odds = -1.5 + sum(0.1 * number * value for number, value in enumerate(FEATURES.vector()))
    assert FITTED.probability(FEATURES) == pytest.approx(1 / (1 + math.exp(-log_odds)), rel=1e-12)


@pytest.mark.parametrize("value", [-math.inf, -1e300, -1e3, 0.0, 1e3, 1e300, math.inf, math.nan])
@pytest.mark.parametrize("calibration", [FITTED, Calibration.default()], ids=["fitted", "default"])
def test_probability_is_never_certain_and_never_nan(calibration: Calibration, value: float) -> None:
    features = Features(middle_mean=value, middle_sum=value, suffix_mean=value, agreement=-value)
    assert 0.0 < calibration.probability(features) < 1.0


def test_impossible_candidate_has_a_probability_near_zero() -> None:
    impossible = replace(FEATURES, middle_mean=-math.inf, middle_sum=-math.inf)
    assert FITTED.probability(impossible) < 1e-12
    assert Calibration.default().probability(impossible) < 1e-12


@pytest.mark.parametrize(
    ("length", "bias"), [(1, -0.5), (2, -0.125), (4, 0.25), (8, 0.5), (16, 0.75), (17, 0.75), (400, 0.75)]
)
def test_bias_is_linear_in_log_length_and_flat_outside(length: int, bias: float) -> None:
    assert FITTED.bias(length) == pytest.approx(bias)


@pytest.mark.parametrize("length", [1, 3, 9])
def test_bias_below_the_curve_and_of_one_point_is_flat(length: int) -> None:
    assert interpolated_bias(((9, 0.5), (12, 0.75)), length) == 0.5
    assert interpolated_bias(((3, 0.25),), length) == 0.25


def changed(change: Callable[[dict[str, Any]], object], folder: Path) -> None:
    """Saves a good file, then changes its JSON in place."""
    FITTED.save(folder)
    path = folder / "calibration.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("threshold"), r"the file is of another version: missing=\['threshold'\]"),
        (lambda v: v.update(surprise=1), r"unknown=\['surprise'\]"),
        (lambda v: v["weights"].pop("suffix_mean"), r"weights is of another version: missing=\['suffix_mean'\]"),
        (lambda v: v["weights"].update(charm=1.0), r"weights is of another version: .*unknown=\['charm'\]"),
        (lambda v: v.update(weights=[]), "weights must be a JSON object, got list"),
        (lambda v: v["weights"].update(length=math.nan), "weights.length=nan must be a finite number"),
        (lambda v: v["weights"].update(length="1"), "weights.length='1' must be a finite number"),
        (lambda v: v.update(intercept=math.inf), "intercept=inf must be a finite number"),
        (lambda v: v.update(intercept=None), "intercept=None must be a finite number"),
        (lambda v: v.update(intercept=10**400), "too large"),
        (lambda v: v.update(threshold=1.5), "threshold=1.5 must be a finite number between 0 and 1"),
        (lambda v: v.update(threshold=-0.1), "threshold=-0.1 must be"),
        (lambda v: v.update(threshold=True), "threshold=True must be"),
        (lambda v: v.update(prior_weight=-1), "prior_weight=-1 must be a finite number between 0 and inf"),
        (lambda v: v.update(length_bias={"4": 1}), "length_bias must be a list of pairs"),
        (lambda v: v.update(length_bias=[[1, 2, 3]]), "length_bias must be a list of pairs"),
        (lambda v: v.update(length_bias=[[4, 0.1], [2, 0.1]]), r"lengths=\[4, 2\] must be ascending"),
        (lambda v: v.update(length_bias=[[0, 0.1]]), r"lengths=\[0\] must be ascending"),
        (lambda v: v.update(length_bias=[["4", 0.1], [2, 0.1]]), r"lengths=\['4', 2\] must be ascending"),
        (lambda v: v.update(length_bias=[[4, math.nan]]), "length_bias at 4=nan must be"),
        (lambda v: v.update(fingerprint=None), "fingerprint=None must be a string"),
        (lambda v: v.update(provenance=3), "provenance must be a JSON object, got int"),
        (lambda v: v["provenance"].pop("commit"), r"provenance is of another version: missing=\['commit'\]"),
        (lambda v: v["provenance"].update(date="yesterday"), "date='yesterday' must be a day"),
        (lambda v: v["provenance"].update(date=20), "date=20 must be a day"),
        (lambda v: v["provenance"].update(num_holes=0), "num_holes=0 must be whole numbers of at least 1"),
        (lambda v: v["provenance"].update(file_share=1.5), "file_share=1.5 must be"),
    ],
)
def test_bad_file_is_named_with_the_remedy(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    changed(change, tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        Calibration.load(tmp_path, "f" * 64)
    assert str(tmp_path / "calibration.json") in str(caught.value)
    assert f"run: dgemma-engine calibrate {tmp_path} FILES" in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"null", b"\xff", b""])
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "calibration.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"calibration\.json: .*run: dgemma-engine calibrate"):
        Calibration.load(tmp_path, "f" * 64)


def test_calibration_of_another_model_is_refused(tmp_path: Path) -> None:
    FITTED.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"belongs to another model .*run: dgemma-engine calibrate .* FILES"):
        Calibration.load(tmp_path, "e" * 64)


@pytest.mark.parametrize("later", sorted(LATER_NAMES))
def test_score_that_was_fitted_without_a_later_feature_gives_it_no_weight(tmp_path: Path, later: str) -> None:
    FITTED.save(tmp_path)
    path = tmp_path / "calibration.json"
    values = json.loads(path.read_text())
    del values["weights"][later]
    path.write_text(json.dumps(values))
    weights = dict(Calibration.load(tmp_path, FITTED.fingerprint).weights or ())
    assert FITTED.weights is not None
    assert weights == dict(FITTED.weights) | {later: 0.0}


def test_weights_in_another_order_are_refused() -> None:
    assert FITTED.weights is not None
    with pytest.raises(CheckpointError, match="are not this version's"):
        replace(FITTED, weights=FITTED.weights[::-1])


def write_model(folder: Path, *, data: bytes = bytes(1_000_000), name: str = "model.safetensors") -> None:
    """Writes the files of a model: names and sizes are real, contents are not."""
    header = b'{"a": 1}'
    for file in ("config.json", "infill.json", "tokenizer.json"):
        (folder / file).write_text("{}")
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + data)


def overwritten(path: Path, at: int) -> None:
    """Changes one byte in place; a negative place counts from the end."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: overwritten(folder / "model.safetensors", -1),
        lambda folder: overwritten(folder / "model.safetensors", 9),
        lambda folder: overwritten(folder / "model.safetensors", 16),
        lambda folder: overwritten(folder / "model.safetensors", 16 + 10 * (1_000_000 // 17)),
        lambda folder: write_model(folder, data=bytes(1_000_001)),
        lambda folder: (folder / "model.safetensors").rename(folder / "other.safetensors"),
        lambda folder: write_model(folder, name="more.safetensors"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "infill.json").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{} "),
    ],
    ids=["end", "header", "start", "between", "size", "name", "shard", "config", "infill", "tokenizer"],
)
def test_fingerprint_changes_with_the_model(tmp_path: Path, change: Callable[[Path], object]) -> None:
    write_model(tmp_path)
    before = fingerprint(tmp_path)
    change(tmp_path)
    assert fingerprint(tmp_path) != before


@pytest.mark.parametrize("at", [0, 500_000, -1], ids=["start", "between", "end"])
def test_fingerprint_of_a_gguf_file_changes_with_it_and_not_with_its_name(tmp_path: Path, at: int) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    for path in (one, two):
        path.write_bytes(b"GGUF" + bytes(1_000_000))
    assert fingerprint(one) == fingerprint(two)
    step = 1_000_004 // 17
    overwritten(two, step * 8 if at == 500_000 else at)
    assert fingerprint(one) != fingerprint(two)


def test_fingerprint_is_the_same_after_calibration_and_elsewhere(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write_model(folder)
    before = fingerprint(folders[0])
    FITTED.save(folders[0])
    (folders[0] / "README.md").write_text("# A model")
    assert fingerprint(folders[0]) == fingerprint(folders[1]) == before


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 8, b"\xff" * 100])
def test_fingerprint_of_a_damaged_file_is_computed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert len(fingerprint(tmp_path)) == 64


def test_fingerprint_reads_little_of_a_large_file(tmp_path: Path) -> None:
    """A sparse file of 16 GiB: reading all of it would take a minute."""
    write_model(tmp_path, data=b"")
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(16 << 30)
    before = fingerprint(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert fingerprint(tmp_path) != before


def test_fingerprint_of_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors here"):
        fingerprint(tmp_path)


def test_fingerprint_of_an_unreadable_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        fingerprint(tmp_path)
