"""Judged holes to weights, a threshold, and how good both are on files they were not fitted on.

The score ranks the candidates of a hole and decides whether the first is shown, so both are judged by the first
candidate of each hole under weights fitted without its file. Knows no engine and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgemma_engine.checkpoint.features import Features
from dgemma_engine.errors import EngineError
from dgemma_engine.tools.calibration.judged_hole import JudgedCandidate, JudgedHole
from dgemma_engine.tools.calibration.logistic import Logistic, cross_validated, fit_logistic
from dgemma_engine.tools.calibration.reliability import Reliability, reliability
from dgemma_engine.tools.calibration.threshold import CoveragePoint, ThresholdChoice, choose_threshold, coverage_curve

NUM_FOLDS = 5
"""Parts that files are dealt into: at least as many files are needed."""

# Thresholds that show fewer holes are not considered: this many, or this share where there are few holes.
_MIN_SHOWN = 50
_MIN_SHOWN_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFit:
    """The score, and what it does to files it was not fitted on.

    Attributes:
        logistic: fitted on all candidates.
        predictions: held-out probability of the first candidate of each hole that has one, float64 [holes].
        right: whether it is right, bool [holes].
        reliability: of the same.
        points: coverage and precision at every threshold, over all holes.
        choice: threshold to use.
    """

    logistic: Logistic
    predictions: NDArray[np.float64]
    right: NDArray[np.bool_]
    reliability: Reliability
    points: tuple[CoveragePoint, ...]
    choice: ThresholdChoice

    def at_coverage(self, share: float) -> CoveragePoint | None:
        """Returns the highest threshold that answers at least `share` of the holes; None if there is none."""
        enough = [point for point in self.points if point.coverage >= share]
        return max(enough, key=lambda point: point.threshold, default=None)


def fit_score(holes: Sequence[JudgedHole], *, target: float, seed: int) -> ScoreFit:
    """Fits weights on all candidates, and judges them across files.

    Args:
        holes: with their candidates.
        target: precision wanted of what is shown; 0 shows everything, 1 only what was never wrong.
        seed: deals files into folds.

    Raises:
        EngineError: there is too little to learn from.
    """
    answered = [hole for hole in holes if hole.candidates]
    candidates = [candidate for hole in answered for candidate in hole.candidates]
    groups = [hole.file for hole in answered for _ in hole.candidates]
    rights = [candidate.right for candidate in candidates]
    if (num_files := len(set(groups))) < NUM_FOLDS:
        raise EngineError(
            f"the model proposes something in {num_files} files only, {NUM_FOLDS} are needed; calibrate on more files"
        )
    if len(set(rights)) < 2:
        which = "every one" if rights[0] else "none"
        raise EngineError(
            f"of {len(rights)} candidates {which} is right: nothing can be learnt from them; calibrate on other files "
            "or on more"
        )
    vectors = np.array([candidate.features.vector() for candidate in candidates])
    predicted = cross_validated(vectors, rights, groups, generator=np.random.default_rng(seed), num_folds=NUM_FOLDS)
    predictions, right = _firsts(answered, predicted)
    points = coverage_curve(predictions, right, num_silent=len(holes) - len(answered))
    min_shown = max(1, min(_MIN_SHOWN, int(_MIN_SHOWN_SHARE * len(answered))))
    return ScoreFit(
        logistic=fit_logistic(vectors, rights),
        predictions=predictions,
        right=right,
        reliability=reliability(predictions, right),
        points=points,
        choice=choose_threshold(points, target=target, min_shown=min_shown),
    )


def num_right_first(holes: Sequence[JudgedHole], key: Callable[[Features], float | tuple[float, ...]]) -> int:
    """Returns in how many holes the candidate that is best by `key` is right; the first of equals is taken."""

    def of(candidate: JudgedCandidate) -> float | tuple[float, ...]:
        return key(candidate.features)

    return sum(max(hole.candidates, key=of).right for hole in holes if hole.candidates)


def _firsts(
    answered: Sequence[JudgedHole], predicted: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns probability and outcome of the likeliest candidate of each hole."""
    predictions: list[float] = []
    right: list[bool] = []
    start = 0
    for hole in answered:
        end = start + len(hole.candidates)
        first = start + int(predicted[start:end].argmax())
        predictions.append(float(predicted[first]))
        right.append(hole.candidates[first - start].right)
        start = end
    return np.array(predictions), np.array(right)
