"""Whether an adapter is better beyond chance: results of the same holes without and with it in, a verdict out.

The test is the paired sign-flip permutation test (Fisher 1935), one-sided, over the sum in each file of how much more
similar to the truth its holes were filled: without a difference, either sign of a file's sum would be as likely. Files
are flipped as a whole, since holes of one file resemble each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np

from dgemma_engine.tools.tuning.hole_results import HoleResult

LEVEL = 0.05
"""p-value below which a difference counts as real."""

_MOST_EXHAUSTIVE_FILES = 12
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The verdict.

    Attributes:
        p_value: chance of a gain in edit similarity that large without a difference.
        num_exact_before: holes that were filled exactly without the adapter.
        num_exact_after: the same with it.
    """

    p_value: float
    num_exact_before: int
    num_exact_after: int

    @classmethod
    def of(cls, before: Sequence[HoleResult], after: Sequence[HoleResult], *, seed: int) -> Self:
        """Compares results hole by hole.

        Args:
            before: without the adapter.
            after: with it; of the same holes in the same order.
            seed: of the resamples, where there are too many files for all signs.
        """
        assert [one.hole for one in before] == [one.hole for one in after], "results are paired"
        gains = dict[int, float]()
        for one, other in zip(before, after, strict=True):
            gains[one.file] = gains.get(one.file, 0.0) + other.similarity - one.similarity
        return cls(
            p_value=sign_flip_p_value(list(gains.values()), seed=seed),
            num_exact_before=sum(result.exact for result in before),
            num_exact_after=sum(result.exact for result in after),
        )

    @property
    def is_better(self) -> bool:
        """Whether the gain is beyond chance, and more holes are filled exactly."""
        return self.p_value < LEVEL and self.num_exact_after > self.num_exact_before


def sign_flip_p_value(gains: Sequence[float], *, seed: int) -> float:
    """Returns the share of sign patterns whose sum is at least the one that was seen.

    Args:
        gains: of each independent part, at least one.
        seed: of the resamples, where there are too many for all signs.
    """
    values_F = np.asarray(gains, np.float64)
    if len(values_F) <= _MOST_EXHAUSTIVE_FILES:
        signs = np.array(list(product((1.0, -1.0), repeat=len(values_F))))
        extra = 0
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(_RESAMPLES, len(values_F)))
        # The pattern that was seen is one of all patterns, so that no chance comes out as 0.
        extra = 1
    # Rounding must not decide between sums of the same values in another order.
    num_at_least = int((signs @ values_F >= values_F.sum() - 1e-9).sum())
    return (num_at_least + extra) / (len(signs) + extra)
