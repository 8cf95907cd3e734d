"""The least score that is shown: how much is shown at each threshold, how much of it is right, and which is taken.

Reads only what would be shown: the first-ranked candidate of each hole, with the probability that weights fitted
without that hole gave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveragePoint:
    """What one threshold does.

    Attributes:
        threshold: holes whose probability is at least this are answered.
        num_shown: how many those are.
        coverage: their share of all holes, 0 to 1.
        precision: share of them that is right, 0 to 1.
    """

    threshold: float
    num_shown: int
    coverage: float
    precision: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChoice:
    """The threshold to use, and whether it does what was asked.

    Attributes:
        point: of the chosen threshold.
        target: precision that was asked for.
        reached: False where no threshold reached it; `point` is then the most precise one.
    """

    point: CoveragePoint
    target: float
    reached: bool


def coverage_curve(predictions: ArrayLike, right: ArrayLike, *, num_silent: int = 0) -> tuple[CoveragePoint, ...]:
    """Returns one point per distinct probability, thresholds ascending, coverage falling.

    Args:
        predictions: held-out probability of the first-ranked candidate, one per hole that has any candidate.
        right: whether that candidate is right, 0 or 1.
        num_silent: further holes without any candidate; they count as not covered.

    Raises:
        ValueError: no holes, lengths that differ, a probability outside 0 to 1, or a negative count.
    """
    probability, correct = np.asarray(predictions, np.float64), np.asarray(right, np.float64)
    if probability.ndim != 1 or probability.shape != correct.shape or not len(probability):
        raise ValueError(f"{probability.shape=} and {correct.shape=} must be [holes], with at least one hole")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("predictions must be probabilities between 0 and 1")
    if num_silent < 0:
        raise ValueError(f"{num_silent=} must not be negative")
    order = np.argsort(-probability, kind="stable")
    descending, num_right = probability[order], correct[order].cumsum()
    # Equal probabilities are shown together or not at all.
    last_of_equals = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    num_holes = len(probability) + num_silent
    return tuple(
        CoveragePoint(
            threshold=float(descending[index]),
            num_shown=int(index) + 1,
            coverage=float((index + 1) / num_holes),
            precision=float(num_right[index] / (index + 1)),
        )
        for index in last_of_equals[::-1]
    )


def choose_threshold(points: Sequence[CoveragePoint], *, target: float = 0.3, min_shown: int = 50) -> ThresholdChoice:
    """Returns the smallest threshold at which what is shown is right often enough.

    Precision may fall again as the threshold rises; the first threshold that reaches the target shows the most. Where
    none does, the most precise one is taken, the smallest of equals.

    Args:
        points: of `coverage_curve`.
        target: precision wanted over the holes at or above the threshold. 0 shows all that was seen; 1 only what was
            never wrong.
        min_shown: a threshold that shows fewer holes is not considered, since chance decides over those. 50 leaves
            a standard error of 6 points at a precision of 0.3.

    Raises:
        ValueError: a target outside 0 to 1, or no threshold shows `min_shown` holes.
    """
    if not 0.0 <= target <= 1.0:
        raise ValueError(f"{target=} must be between 0 and 1")
    considered = sorted((p for p in points if p.num_shown >= min_shown), key=lambda point: point.threshold)
    if not considered:
        most = max((point.num_shown for point in points), default=0)
        raise ValueError(f"only {most} holes have a candidate, {min_shown=} are needed; calibrate on more files")
    for point in considered:
        if point.precision >= target:
            return ThresholdChoice(point=point, target=target, reached=True)
    return ThresholdChoice(point=max(considered, key=lambda p: p.precision), target=target, reached=False)
