"""Where a run stands: what a resumed run needs besides weights and averages."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Self

from dgemma_engine.tools.training.curves import Curves
from dgemma_engine.tools.training.data.batches import Position


@dataclass(slots=True)
class TrainingProgress:
    """Counters of a run; changed by the trainer.

    Attributes:
        step: optimiser steps made.
        elapsed_s: time spent training, over all resumptions.
        tokens: prompt, slot and canvas tokens seen.
        holes: holes seen.
        best_slot: lowest held-out slot loss so far.
        position: of the batch stream.
        curves: what was measured.
    """

    step: int = 0
    elapsed_s: float = 0.0
    tokens: int = 0
    holes: int = 0
    best_slot: float = math.inf
    position: Position = field(default_factory=Position)
    curves: Curves = field(default_factory=Curves)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for a checkpoint."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        position = {"chunk": self.position.chunk, "batch": self.position.batch}
        return values | {"position": position, "curves": self.curves.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Reads `to_dict`'s result."""
        position, curves = Position(**values["position"]), Curves.from_dict(values["curves"])
        others = {key: value for key, value in values.items() if key not in ("position", "curves")}
        return cls(**others, position=position, curves=curves)
