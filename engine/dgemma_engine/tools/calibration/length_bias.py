"""How sure the model is at each length whatever the hole, and how much the length prior helps on top of that.

Turns confidences of first denoising steps at lengths of the grid into the curve `Calibration.length_bias` and the
number `Calibration.prior_weight`. The choice between lengths is the engine's own, `lengths.best_lengths`.

Shape legend: H holes, L lengths of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgemma_engine.checkpoint.calibration import interpolated_bias
from dgemma_engine.infill.length_search import LengthPrior, best_lengths

PRIOR_WEIGHTS = (0.0, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)

Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthTrial:
    """A hole of known length, judged by the model at every length of its grid.

    Attributes:
        hole: key of the hole.
        true_length: tokens of what was cut out.
        lengths: tokens tried, ascending.
        confidences: mean negative entropy of the free positions at each length, nats, mean over noise draws.
        log_prior: log-probability of each length before the model is asked, nats.
    """

    hole: str
    true_length: int
    lengths: tuple[int, ...]
    confidences: tuple[float, ...]
    log_prior: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.true_length < 1:
            raise ValueError(f"hole {self.hole}: {self.true_length=} must be at least 1")
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)) or self.lengths[0] < 1:
            raise ValueError(f"hole {self.hole}: {self.lengths=} must be ascending positive numbers")
        if not len(self.lengths) == len(self.confidences) == len(self.log_prior):
            raise ValueError(f"hole {self.hole}: every length needs one confidence and one log-prior")
        if not all(map(math.isfinite, (*self.confidences, *self.log_prior))):
            raise ValueError(f"hole {self.hole}: {self.confidences=} and {self.log_prior=} must be finite")

    def steps_from_truth(self, length: int) -> int:
        """Returns how many steps of the grid lie between `length` and the true length, or the one nearest to it."""
        nearest = min(self.lengths, key=lambda tried: abs(math.log(tried / self.true_length)))
        return abs(self.lengths.index(length) - self.lengths.index(nearest))

    def best_length(self, bias: Curve, prior_weight: float) -> int:
        """Returns the length that the engine's search would put first."""
        return best_lengths(
            {length: (sure,) for length, sure in zip(self.lengths, self.confidences, strict=True)},
            LengthPrior(lengths=self.lengths, log_probs=self.log_prior),
            bias=lambda length: interpolated_bias(bias, length),
            prior_weight=prior_weight,
            count=1,
        )[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthFit:
    """What the search for a length needs, and how well it does with it.

    Attributes:
        bias: the curve, fitted on all holes.
        prior_weight: chosen on holes that a first curve was not fitted on.
        hit_rates: pairs of a prior weight and the share of those holes whose best length was within one step.
        raw_hit_rate: the same share without bias and prior: what calibration improves on.
        num_judged: how many holes those are.
    """

    bias: Curve
    prior_weight: float
    hit_rates: tuple[tuple[float, float], ...]
    raw_hit_rate: float
    num_judged: int


def fit_bias(trials: Iterable[LengthTrial], *, spared_steps: int = 1, min_holes: int = 10) -> Curve:
    """Returns the length bias b(L): pairs of a length and nats, ascending, mean 0.

    The model of a confidence is c(hole, L) = level(hole) + b(L), plus a peak around the true length, which is the
    signal (CAL, arXiv 2602.00476, whose fit leaves out what lies near the true length). So the true length and
    `spared_steps` to either side are left out, and b(L) is the mean over holes of c(hole, L) - level(hole), the level
    the mean over lengths of c(hole, L) - b(L): both at once, by least squares. A plain mean per length would take
    the levels of easy holes, which are short and so are missing at short lengths, for a bias.

    Args:
        trials: holes of known length.
        spared_steps: steps of the grid to either side of the true length that are left out; 0 leaves out the nearest
            length alone and takes the flanks of its peak for bias, many leave few holes for a length.
        min_holes: lengths with fewer holes left do not get a point; their bias is interpolated.

    Raises:
        ValueError: fewer than two lengths have holes enough, or no holes link some lengths to the others.
    """
    tried = list(trials)
    lengths = sorted({length for trial in tried for length in trial.lengths})
    column = {length: index for index, length in enumerate(lengths)}
    confidence_HL = np.full((len(tried), len(lengths)), np.nan)
    for row, trial in enumerate(tried):
        for length, sure in zip(trial.lengths, trial.confidences, strict=True):
            if trial.steps_from_truth(length) > spared_steps:
                confidence_HL[row, column[length]] = sure
    enough_L = (~np.isnan(confidence_HL)).sum(0) >= min_holes
    if enough_L.sum() < 2:
        raise ValueError(
            f"{len(tried)} holes: fewer than two lengths were tried away from the truth in {min_holes=}; "
            "calibrate on more files"
        )
    bias_L = _column_effects(confidence_HL[:, enough_L])
    kept = [length for length, enough in zip(lengths, enough_L.tolist(), strict=True) if enough]
    return tuple(zip(kept, bias_L.tolist(), strict=True))


def choose_prior_weight(
    trials: Sequence[LengthTrial], bias: Curve, *, prior_weights: Sequence[float] = PRIOR_WEIGHTS
) -> tuple[float, tuple[tuple[float, float], ...]]:
    """Returns the weight with the most hits, the smallest of equals, and the hit rate of every weight.

    A hit is a hole whose best length, by confidence - b(L) + weight * log-prior, is at most one step of the grid from
    the true length.

    Args:
        trials: holes that `bias` was not fitted on.
        bias: of `fit_bias`.
        prior_weights: to choose from.

    Raises:
        ValueError: no trials or no weights.
    """
    if not trials or not prior_weights:
        raise ValueError(f"{len(trials)} holes and {prior_weights=}: at least one of each is needed")
    rates = tuple((weight, hit_rate(trials, bias, weight)) for weight in sorted(prior_weights))
    return max(rates, key=lambda pair: pair[1])[0], rates


def fit_lengths(
    trials: Sequence[LengthTrial], *, generator: np.random.Generator, prior_weights: Sequence[float] = PRIOR_WEIGHTS
) -> LengthFit:
    """Fits the bias on half of the holes, chooses the prior's weight on the other half, then fits the bias on all.

    Args:
        trials: one per hole.
        generator: deals holes into halves.
        prior_weights: to choose from.

    Raises:
        ValueError: a hole comes twice, or there are too few.
    """
    if len({trial.hole for trial in trials}) != len(trials):
        raise ValueError("a hole comes twice; average its noise draws into one trial")
    shuffled = [trials[index] for index in generator.permutation(len(trials))]
    half = len(shuffled) // 2
    weight, rates = choose_prior_weight(shuffled[half:], fit_bias(shuffled[:half]), prior_weights=prior_weights)
    return LengthFit(
        bias=fit_bias(shuffled),
        prior_weight=weight,
        hit_rates=rates,
        raw_hit_rate=hit_rate(shuffled[half:], (), 0.0),
        num_judged=len(shuffled) - half,
    )


def hit_rate(trials: Sequence[LengthTrial], bias: Curve, prior_weight: float) -> float:
    """Returns the share of holes whose best length is within one step of the truth; `trials` must not be empty."""
    hits = [trial.steps_from_truth(trial.best_length(bias, prior_weight)) <= 1 for trial in trials]
    return sum(hits) / len(hits)


def _column_effects(value_HL: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the column effects [L], mean 0, of the least-squares fit row effect + column effect; NaN is missing."""
    seen_HL = (~np.isnan(value_HL)).astype(np.float64)
    filled_HL = np.nan_to_num(value_HL)
    share_HL = seen_HL / np.maximum(1.0, seen_HL.sum(1, keepdims=True))
    # Normal equations with the row effects eliminated: the Laplacian of lengths that occur in the same holes.
    laplacian_LL = np.diag(seen_HL.sum(0)) - seen_HL.T @ share_HL
    target_L = filled_HL.sum(0) - share_HL.T @ filled_HL.sum(1)
    if np.linalg.matrix_rank(laplacian_LL, hermitian=True) < len(laplacian_LL) - 1:
        raise ValueError("some lengths never occur in the same hole as the others; try the whole grid in every hole")
    # Of all solutions, which differ by a constant, `lstsq` returns the shortest: mean 0.
    return np.linalg.lstsq(laplacian_LL, target_L, rcond=None)[0]
