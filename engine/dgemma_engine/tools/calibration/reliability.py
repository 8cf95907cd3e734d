"""How well probabilities agree with outcomes: predictions and outcomes in, bins and two figures of merit out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

# Of the normal distribution: 95 % lie within.
_Z95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Predictions that lie next to each other.

    Attributes:
        num: how many.
        num_right: how many of them came true.
        predicted: their mean, 0 to 1.
    """

    num: int
    num_right: int
    predicted: float

    @property
    def observed(self) -> float:
        """Share that came true."""
        return self.num_right / self.num

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the true share: sensible for few trials and for shares near 0."""
        return wilson_interval(self.num_right, self.num)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How predictions compare with outcomes.

    Attributes:
        bins: ascending, of nearly equal counts.
        num: predictions.
        base_rate: share that came true.
        brier: mean squared distance of prediction and outcome; 0 is perfect, always saying the base rate gives
            base rate * (1 - base rate).
        calibration_error: mean over bins, by count, of |mean prediction - share that came true| (ECE); 0 is perfect.
            Chance alone makes it positive: about 0.4 / sqrt(num / bins) at a base rate of one half.
    """

    bins: tuple[Bin, ...]
    num: int
    base_rate: float
    brier: float
    calibration_error: float


def reliability(predictions: ArrayLike, right: ArrayLike, *, num_bins: int = 10) -> Reliability:
    """Compares probabilities with outcomes.

    Args:
        predictions: probabilities, best held out.
        right: 0 or 1 for each.
        num_bins: bins of equal counts; equal predictions stay together, so there may be fewer.

    Raises:
        ValueError: nothing to compare, shapes that differ, a prediction outside 0 to 1, or no bins.
    """
    probability, correct = np.asarray(predictions, np.float64), np.asarray(right, np.float64)
    if probability.ndim != 1 or probability.shape != correct.shape or not len(probability):
        raise ValueError(f"{probability.shape=} and {correct.shape=} must be [N], N at least 1")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("predictions must be probabilities between 0 and 1")
    if num_bins < 1:
        raise ValueError(f"{num_bins=} must be at least 1")
    order = np.argsort(probability, kind="stable")
    probability, correct = probability[order], correct[order]
    num = len(probability)
    # An edge inside a run of equal predictions moves to the run's end: the order within it means nothing.
    last = np.maximum(0, np.arange(1, num_bins + 1) * num // num_bins - 1)
    edges = np.unique(np.append(0, np.searchsorted(probability, probability[last], side="right"))).tolist()
    bins = tuple(
        Bin(num=end - start, num_right=int(correct[start:end].sum()), predicted=float(probability[start:end].mean()))
        for start, end in pairwise(edges)
    )
    return Reliability(
        bins=bins,
        num=num,
        base_rate=float(correct.mean()),
        brier=float(((probability - correct) ** 2).mean()),
        calibration_error=sum(b.num * abs(b.predicted - b.observed) for b in bins) / num,
    )


def wilson_interval(num_right: int, num: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share (Wilson 1927).

    Args:
        num_right: of `num`.
        num: trials, at least 1.
    """
    share, z2 = num_right / num, _Z95**2
    centre = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = _Z95 * math.sqrt(share * (1 - share) / num + z2 / (4 * num * num)) / (1 + z2 / num)
    return max(0.0, centre - half), min(1.0, centre + half)
