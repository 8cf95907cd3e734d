"""Where a run stands, and its curve of quality against holes trained: one JSON object a line.

The curve is a part of the state: after a crash the file of the resumed run holds what that state had seen, no more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from dgemma_engine.durable_files import write_whole
from dgemma_engine.tools.adaptation.evaluation import Losses
from dgemma_engine.tools.training.checkpoint import unwritable

CURVE = "curve.jsonl"


@dataclass(slots=True)
class AdaptProgress:
    """Counters of a run; changed by the trainer.

    Attributes:
        step: optimiser steps made.
        holes: holes trained on.
        tokens: targets with a weight among them.
        elapsed_s: time spent training, over all calls.
        base: losses of the untrained base on the held-out holes; `alone` without suffix, `beside` with it. Empty until
            they are measured.
        curve: points so far, oldest first.
    """

    step: int = 0
    holes: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    base: dict[str, Losses] = field(default_factory=dict[str, Losses])
    curve: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for a state."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Reads `to_dict`'s result."""
        return cls(**values)

    @property
    def minutes(self) -> float:
        """Time spent training."""
        return round(self.elapsed_s / 60, 2)

    def add_point(self, **values: Any) -> dict[str, Any]:
        """Adds a point to the curve; returns it."""
        place = {"step": self.step, "holes": self.holes, "tokens": self.tokens, "minutes": self.minutes}
        self.curve.append(place | values)
        return self.curve[-1]

    def save_curve(self, folder: Path) -> None:
        """Writes `curve.jsonl` atomically.

        Raises:
            TrainingError: the disk is full or the folder cannot be written; the last curve is untouched.
        """
        path = folder / CURVE
        try:
            write_whole(path, "".join(json.dumps(point) + "\n" for point in self.curve).encode())
        except OSError as error:
            raise unwritable(path, error) from error
