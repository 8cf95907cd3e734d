"""Whether a task's adapter is better beyond chance: the same held-out rows without and with it in, a verdict out.

The test is that of `tuning.comparison`, over the gain of each row in the share of its free tokens that are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from dgemma_engine.tools.tuning.comparison import LEVEL, sign_flip_p_value


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One held-out row.

    Attributes:
        right: free tokens that are right.
        free: all of its free tokens.
    """

    right: int
    free: int

    @property
    def share(self) -> float:
        """Share of its free tokens that are right."""
        return self.right / self.free


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """The verdict.

    Attributes:
        p_value: chance of a gain that large without a difference.
        rows: held out.
        solved_before: rows that were wholly right without the adapter.
        solved_after: the same with it.
        tokens_before: mean share of a row's free tokens that were right without it.
        tokens_after: the same with it.
    """

    p_value: float
    rows: int
    solved_before: int
    solved_after: int
    tokens_before: float
    tokens_after: float

    @classmethod
    def of(cls, before: Sequence[RowResult], after: Sequence[RowResult], *, seed: int) -> Self:
        """Compares results row by row.

        Args:
            before: without the adapter.
            after: with it; of the same rows in the same order.
            seed: of the resamples, where there are too many rows for all signs.
        """
        gains = [other.share - one.share for one, other in zip(before, after, strict=True)]
        return cls(
            p_value=sign_flip_p_value(gains, seed=seed),
            rows=len(before),
            solved_before=sum(one.right == one.free for one in before),
            solved_after=sum(one.right == one.free for one in after),
            tokens_before=round(fmean(one.share for one in before), 4),
            tokens_after=round(fmean(one.share for one in after), 4),
        )

    @property
    def is_better(self) -> bool:
        """Whether the gain is beyond chance, and no fewer rows are wholly right."""
        return self.p_value < LEVEL and self.solved_after >= self.solved_before
