"""Logistic regression: features of candidates and whether they were right in, weights and probabilities out.

Newton's method on a penalised likelihood, small enough to be read; the number of features is not limited to those of
`features`. Knows no files.

Shape legend: N candidates, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MAX_STEPS = 100
_MAX_HALVINGS = 30
_TOLERANCE = 1e-9
# As in `calibration`: probabilities of larger log-odds are nearly 0 or 1 for a double.
_MAX_LOG_ODDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Logistic:
    """P(right) = sigmoid(intercept + weights . features).

    Attributes:
        weights: one per feature, on the features' own scale.
        intercept: log-odds where all features are 0.
    """

    weights: tuple[float, ...]
    intercept: float

    def predict(self, features_NF: ArrayLike) -> NDArray[np.float64]:
        """Returns probabilities [N], float64."""
        log_odds_N = np.asarray(features_NF, np.float64) @ np.array(self.weights) + self.intercept
        return _sigmoid(np.clip(log_odds_N, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))


def fit_logistic(features_NF: ArrayLike, right_N: ArrayLike, *, l2: float = 1.0) -> Logistic:
    """Fits the weights by penalised maximum likelihood.

    Minimises the sum of -log P over candidates plus `l2 / 2` times the squared weights of the standardised features;
    the intercept is free. A column that never changes gets weight 0. With only one kind of label there is nothing to
    learn but how often it came: weights 0 and the intercept of Laplace's rule, (right + 1) / (N + 2).

    Args:
        features_NF: finite.
        right_N: 0 or 1, or bools.
        l2: above 0. Near 0 lets separable data drive weights up without end; 1 is a standard normal prior on each
            standardised weight and fades as N grows; large leaves the intercept alone.

    Raises:
        ValueError: shapes, labels, numbers or `l2` that do not fit; the message names them.
    """
    features_NF, right_N = _checked(features_NF, right_N)
    if not (l2 > 0 and np.isfinite(l2)):
        raise ValueError(f"{l2=} must be a finite number above 0: separable data has no other limit")
    num_features = features_NF.shape[1]
    num_right, num = float(right_N.sum()), len(right_N)
    if num_right in (0.0, float(num)):
        log_odds = float(np.log((num_right + 1) / (num - num_right + 1)))
        return Logistic(weights=(0.0,) * num_features, intercept=log_odds)
    mean_F, scale_F = features_NF.mean(0), features_NF.std(0)
    # The standard deviation of equal floats need not come out as 0.
    constant_F = scale_F <= 1e-12 * np.maximum(1.0, np.abs(mean_F))
    scaled_NF = np.where(constant_F, 0.0, (features_NF - mean_F) / np.where(constant_F, 1.0, scale_F))
    solution = _newton(np.column_stack([scaled_NF, np.ones(num)]), right_N, l2)
    weights_F = np.where(constant_F, 0.0, solution[:-1] / np.where(constant_F, 1.0, scale_F))
    return Logistic(weights=tuple(weights_F.tolist()), intercept=float(solution[-1] - weights_F @ mean_F))


def cross_validated(
    features_NF: ArrayLike,
    right_N: ArrayLike,
    groups: ArrayLike,
    *,
    generator: np.random.Generator,
    num_folds: int = 5,
    l2: float = 1.0,
) -> NDArray[np.float64]:
    """Returns for each candidate the probability [N] by weights that were fitted without its group.

    Args:
        features_NF: finite.
        right_N: 0 or 1.
        groups: one key per candidate: its hole, or its file. Candidates of one group resemble each other, so a group
            is never both learnt from and judged.
        generator: deals groups into folds.
        num_folds: at least 2; as many as there are groups leaves one group out at a time.
        l2: as for `fit_logistic`.

    Raises:
        ValueError: as for `fit_logistic`, or there are fewer groups than folds.
    """
    features_NF, right_N = _checked(features_NF, right_N)
    keys, group_N = np.unique(np.asarray(groups), return_inverse=True)
    if len(group_N) != len(right_N):
        raise ValueError(f"{len(group_N)} groups for {len(right_N)} candidates: there must be one each")
    if not 2 <= num_folds <= len(keys):
        raise ValueError(f"{num_folds=} must be between 2 and the number of groups, {len(keys)}")
    fold_N = (generator.permutation(len(keys)) % num_folds)[group_N]
    predictions_N = np.empty(len(right_N))
    for fold in range(num_folds):
        held_out_N = fold_N == fold
        fitted = fit_logistic(features_NF[~held_out_N], right_N[~held_out_N], l2=l2)
        predictions_N[held_out_N] = fitted.predict(features_NF[held_out_N])
    return predictions_N


def _checked(features_NF: ArrayLike, right_N: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    features_NF, right_N = np.asarray(features_NF, np.float64), np.asarray(right_N, np.float64)
    if features_NF.ndim != 2 or right_N.shape != features_NF.shape[:1] or not len(right_N):
        raise ValueError(f"{features_NF.shape=} and {right_N.shape=} must be [N, F] and [N], N at least 1")
    if not np.isfinite(features_NF).all():
        row, column = np.argwhere(~np.isfinite(features_NF))[0].tolist()
        raise ValueError(f"feature {column} of candidate {row} is {features_NF[row, column]}; all must be finite")
    if not np.isin(right_N, (0.0, 1.0)).all():
        raise ValueError(f"labels must be 0 or 1, got {right_N[~np.isin(right_N, (0.0, 1.0))][0]}")
    return features_NF, right_N


def _newton(design: NDArray[np.float64], right_N: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """Returns the minimum over the columns of `design`, whose last is the free intercept's."""
    penalty = np.full(design.shape[1], l2)
    penalty[-1] = 0.0
    at = np.zeros(design.shape[1])
    at[-1] = np.log(right_N.mean() / (1 - right_N.mean()))
    loss = _loss(design, right_N, penalty, at)
    for _ in range(_MAX_STEPS):
        predicted_N = _sigmoid(design @ at)
        gradient = design.T @ (predicted_N - right_N) + penalty * at
        curvature = (design.T * (predicted_N * (1 - predicted_N))) @ design + np.diag(penalty)
        # A column of zeros has the penalty for curvature; the intercept's is above 0 unless all is certain already.
        curvature[-1, -1] += 1e-12
        step = np.linalg.solve(curvature, gradient)
        # Newton's step can overshoot where the likelihood is nearly flat; the loss is convex, so halving it will do.
        for _ in range(_MAX_HALVINGS):
            next_loss = _loss(design, right_N, penalty, at - step)
            if next_loss <= loss:
                break
            step = step / 2
        else:
            return at
        at, gain, loss = at - step, loss - next_loss, next_loss
        if gain <= _TOLERANCE * max(1.0, abs(loss)) and np.abs(step).max() <= 1e-6:
            return at
    return at


def _loss(
    design: NDArray[np.float64], right_N: NDArray[np.float64], penalty: NDArray[np.float64], at: NDArray[np.float64]
) -> float:
    log_odds_N = design @ at
    return float((np.logaddexp(0.0, log_odds_N) - right_N * log_odds_N).sum() + (penalty * at * at).sum() / 2)


def _sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -log_odds))
