"""Acceptance policies: which free positions hold a token on the next canvas; the others are noise again.

A new policy is one frozen (hashable) class with the method of `Acceptance`; the loop needs no change.

Shape legend: R rows, M positions of the longest free part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.diffusion.position_scores import PositionScores


class Acceptance(Protocol):
    """Decides between a token and noise."""

    def accept(self, scores: PositionScores) -> Tensor:
        """Returns the accepted positions [R, M], bool; where `valid_RM` is False the value is ignored.

        Called while a CUDA graph is captured: tensor operations without host synchronisation.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyBound:
    """Accepts the surest positions while their joint uncertainty stays small (arXiv 2505.24857).

    Attributes:
        bound: nats; near 0 accepts one token a step, large accepts all at once.
    """

    bound: float

    def __post_init__(self) -> None:
        if self.bound <= 0:
            raise ValueError(f"{self.bound=} must be > 0")

    def accept(self, scores: PositionScores) -> Tensor:
        """See `Acceptance.accept`; positions that are not valid spend no budget."""
        entropy_RM = scores.entropy_RM.masked_fill(~scores.valid_RM, torch.inf)
        ascending_RM, order_RM = torch.sort(entropy_RM, dim=-1)
        spent_by_others_RM = torch.cumsum(ascending_RM, dim=-1) - ascending_RM
        return torch.zeros_like(scores.valid_RM).scatter(-1, order_RM, spent_by_others_RM <= self.bound)
