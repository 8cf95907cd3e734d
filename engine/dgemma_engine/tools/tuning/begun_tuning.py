"""What a tuning keeps for its resumption beside the trainer's state: what it belongs to, and the figures before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from dgemma_engine.durable_files import write_whole
from dgemma_engine.errors import CannotResume, TrainingError
from dgemma_engine.tools.calibration.samples import SampledHole
from dgemma_engine.tools.corpus.stable_hash import stable_hash
from dgemma_engine.tools.tuning.hole_results import HoleResult
from dgemma_engine.tools.tuning.tuned_base import TunedBase, base_changed

_NAME = "before.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunTuning:
    """A tuning whose holes were measured without an adapter.

    Attributes:
        base_sha256: of the base.
        merged_sha256: of the adapter that it was trained on top of.
        split_sha256: identifies the held-out files.
        holes_key: hash of the holes and their texts.
        spent_s: seconds of work that this took; measuring afterwards takes about as long.
        results: of the holes that were measured: the first ones.
    """

    base_sha256: str
    merged_sha256: str
    split_sha256: str
    holes_key: int
    spent_s: float
    results: tuple[HoleResult, ...]

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Reads what `save` wrote; None where there is nothing, or nothing whole."""
        try:
            values: dict[str, Any] = json.loads((folder / _NAME).read_text(encoding="utf-8"))
            results = tuple(HoleResult(**result) for result in values.pop("results"))
            return cls(**values, results=results)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def require_same(self, base: TunedBase, split_sha256: str) -> None:
        """Makes sure that it belongs to this base and these files.

        Raises:
            CannotResume: it does not.
        """
        if (self.base_sha256, self.merged_sha256) != (base.sha256, base.merged_sha256):
            raise cannot_resume(base_changed(base.path))
        if self.split_sha256 != split_sha256:
            raise cannot_resume("files were added or removed since the training began")

    def save(self, folder: Path) -> None:
        """Writes the file atomically.

        Args:
            folder: must exist.

        Raises:
            TrainingError: the disk is full or the folder cannot be written.
        """
        path = folder / _NAME
        try:
            write_whole(path, json.dumps(asdict(self)).encode())
        except OSError as error:
            raise TrainingError(
                f"{path}: cannot be written ({error.strerror or error}); free some space and start again"
            ) from error


def cannot_resume(reason: str) -> CannotResume:
    """Returns the fault of a training that cannot go on from what is there."""
    return CannotResume(f"{reason}; start again without --resume")


def reason_of(error: TrainingError) -> str:
    """Returns why a training cannot go on, without what to do."""
    return str(error).partition(";")[0]


def holes_key(samples: Sequence[SampledHole]) -> int:
    """Returns a hash of holes and the texts around them: a held-out file that was edited has other holes."""
    return stable_hash(json.dumps([(one.hole, one.task.prefix, one.task.middle, one.task.suffix) for one in samples]))
