"""How far a mean may be off: percentile bootstrap (Efron 1979) with a seed. Knows no holes, only numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

_RESAMPLES = 2_000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two means over the same holes, compared; intervals hold 95 % of the resamples.

    Attributes:
        first: one mean.
        second: the other.
        difference: `second - first`.
        difference_ci: its interval.
        ratio: `second / first`; None where `first` is 0.
        ratio_ci: its interval; None where a resample may have a `first` of 0.
    """

    first: float
    second: float
    difference: float
    difference_ci: Interval
    ratio: float | None
    ratio_ci: Interval | None


def mean_interval(values: Sequence[float], *, seed: int) -> Interval:
    """Returns where 95 % of the means of resampled values lie.

    Args:
        values: one per hole, at least one.
        seed: decides the resamples; the same for the same number of values.
    """
    return _percentiles(_resampled_means(np.asarray([values], dtype=np.float64), seed)[0])


def compare_means(first: Sequence[float], second: Sequence[float], *, seed: int) -> Difference:
    """Compares two series hole by hole: every resample takes the same holes of both.

    Args:
        first: one value per hole.
        second: one value per hole, in the same order.
        seed: decides the resamples.

    Raises:
        ValueError: the series differ in length or are empty.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)=} and {len(second)=} must be equal and not 0")
    pair = np.asarray([first, second], dtype=np.float64)
    means = _resampled_means(pair, seed)
    one, other = (float(mean) for mean in pair.mean(axis=1))
    return Difference(
        first=one,
        second=other,
        difference=other - one,
        difference_ci=_percentiles(means[1] - means[0]),
        ratio=other / one if one else None,
        ratio_ci=_percentiles(means[1] / means[0]) if means[0].all() else None,
    )


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Returns the means of every row's resamples, the same columns drawn for all rows."""
    generator = np.random.default_rng(seed)
    num = values.shape[1]
    return np.stack([values[:, generator.integers(0, num, num)].mean(axis=1) for _ in range(_RESAMPLES)], axis=1)


def _percentiles(means: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(means, _PERCENTILES)
    return float(low), float(high)
