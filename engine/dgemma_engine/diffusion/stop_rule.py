"""Stop rules: which rows need no further denoising step.

A new rule is one class with the methods of `StopRule`; the loop needs no change.

Shape legend: R rows, M positions of the longest free part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.diffusion.position_scores import PositionScores


class StopRule(Protocol):
    """Decides after each step."""

    @property
    def num_earlier(self) -> int:
        """Earlier steps whose answers `finished` compares; 0 keeps none."""
        ...

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """Returns which rows may stop [R], bool.

        Args:
            earlier: `best_RM` of the steps before, newest last; at most `num_earlier`, fewer on the first steps.
            scores: of this step.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StableAndConfident:
    """Stops a row whose answer stays the same and has a low entropy.

    Attributes:
        stability: earlier steps whose answer must equal the current one; 0 asks for confidence only.
        confidence: nats; the mean entropy must be below it. Near 0 runs every step, large stops as soon as stable.
    """

    stability: int
    confidence: float

    def __post_init__(self) -> None:
        if self.stability < 0:
            raise ValueError(f"{self.stability=} must be >= 0")
        if self.confidence <= 0:
            raise ValueError(f"{self.confidence=} must be > 0")

    @property
    def num_earlier(self) -> int:
        """See `StopRule.num_earlier`."""
        return self.stability

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """See `StopRule.finished`."""
        valid_RM = scores.valid_RM
        mean_R = (scores.entropy_RM * valid_RM).sum(-1) / valid_RM.sum(-1).clamp(min=1)
        if len(earlier) < self.stability:
            return torch.zeros_like(mean_R, dtype=torch.bool)
        finished_R = mean_R < self.confidence
        for other_RM in earlier:
            finished_R &= ((other_RM == scores.best_RM) | ~valid_RM).all(-1)
        return finished_R
