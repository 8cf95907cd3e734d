"""Known weights are recovered, and no unusual data gives NaN."""

from __future__ import annotations

import numpy as np
import pytest
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.features import NAMES, Features
from dgemma_engine.tools.calibration.logistic import cross_validated, fit_logistic
from dgemma_engine.tools.calibration.reliability import reliability
from numpy.typing import NDArray

Draw = tuple[NDArray[np.float64], NDArray[np.float64]]
WEIGHTS = np.array([1.2, -0.02, 0.0, 30.0])
INTERCEPT = -0.7


def draw(num: int, seed: int = 0) -> Draw:
    """Returns features on very different scales, one far from 0, and labels drawn by the known weights."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(num, 4)) * np.array([1.0, 50.0, 3.0, 0.03]) + np.array([0.0, 40.0, 0.0, 0.0])
    probability = 1 / (1 + np.exp(-(features @ WEIGHTS + INTERCEPT)))
    return features, (generator.random(num) < probability).astype(float)


def test_known_weights_are_recovered_on_their_own_scale() -> None:
    features, right = draw(40_000)
    fitted = fit_logistic(features, right)
    scales = np.array([1.0, 50.0, 3.0, 0.03])
    assert np.array(fitted.weights) * scales == pytest.approx(WEIGHTS * scales, abs=0.06)
    assert fitted.intercept == pytest.approx(INTERCEPT, abs=0.06)


def check_minimum(features: NDArray[np.float64], right: NDArray[np.float64], l2: float) -> None:
    """Checks that the gradient of the penalised loss vanishes on the standardised features."""
    fitted = fit_logistic(features, right, l2=l2)
    residual = fitted.predict(features) - right
    scale = features.std(0)
    penalty = l2 * np.array(fitted.weights) * scale
    assert ((features - features.mean(0)) / scale).T @ residual + penalty == pytest.approx(0.0 * scale, abs=1e-6)
    assert residual.sum() == pytest.approx(0.0, abs=1e-6)


def test_fit_is_where_the_penalised_gradient_vanishes() -> None:
    check_minimum(*draw(300), 2.0)


def test_steps_that_overshoot_are_halved() -> None:
    """With outliers and almost no penalty, some of these fits have a full Newton step that raises the loss."""
    for seed in range(300, 400):
        generator = np.random.default_rng(seed)
        features = generator.standard_t(1, size=(7, 3))
        check_minimum(features, np.array([0.0, 1.0, *generator.integers(0, 2, 5)]), 1e-6)


def test_large_l2_leaves_the_base_rate() -> None:
    features, right = draw(500)
    fitted = fit_logistic(features, right, l2=1e9)
    assert fitted.predict(features) == pytest.approx(np.full(500, right.mean()), abs=1e-4)


@pytest.mark.parametrize("l2", [1e-6, 1.0])
def test_separable_data_gives_finite_weights_and_certain_order(l2: float) -> None:
    features = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    fitted = fit_logistic(features, [0, 0, 1, 1], l2=l2)
    assert np.isfinite([*fitted.weights, fitted.intercept]).all()
    predictions = fitted.predict(features)
    assert (np.diff(predictions) > 0).all()
    assert 0 < predictions[0] < 0.5 < predictions[-1] < 1


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e9])
def test_constant_column_gets_no_weight_and_changes_nothing(constant: float) -> None:
    features, right = draw(500)
    alone = fit_logistic(features, right)
    fitted = fit_logistic(np.column_stack([features, np.full(500, constant)]), right)
    assert fitted.weights[-1] == 0.0
    assert fitted.weights[:-1] == pytest.approx(alone.weights)
    assert fitted.intercept == pytest.approx(alone.intercept)


def test_equal_columns_share_the_weight() -> None:
    features, right = draw(2_000)
    fitted = fit_logistic(np.column_stack([features, features[:, 0]]), right)
    assert fitted.weights[0] == pytest.approx(fitted.weights[-1])
    assert fitted.weights[0] + fitted.weights[-1] == pytest.approx(WEIGHTS[0], abs=0.25)


@pytest.mark.parametrize(("label", "probability"), [(0, 1 / 22), (1, 21 / 22)])
def test_one_kind_of_label_gives_laplaces_rule(label: int, probability: float) -> None:
    fitted = fit_logistic(draw(20)[0], [label] * 20)
    assert fitted.weights == (0.0,) * 4
    assert fitted.predict(np.zeros((1, 4)))[0] == pytest.approx(probability)


def test_rare_label_converges() -> None:
    features, _ = draw(5_000)
    right = np.zeros(5_000)
    right[features[:, 0].argmax()] = 1
    fitted = fit_logistic(features, right)
    assert fitted.predict(features).sum() == pytest.approx(1.0, abs=1e-4)


def test_held_out_probabilities_are_calibrated() -> None:
    features, right = draw(8_000)
    groups = np.arange(8_000) // 4
    predictions = cross_validated(features, right, groups, generator=np.random.default_rng(1))
    result = reliability(predictions, right)
    assert result.calibration_error < 0.03
    assert result.brier < 0.8 * right.mean() * (1 - right.mean())


def test_no_group_is_both_fitted_and_judged() -> None:
    """Labels are random per group and features identify the group, so a fit that includes it predicts it perfectly."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    features = np.eye(60)[groups]
    right = generator.integers(0, 2, 60).astype(float)[groups]
    seen = fit_logistic(features, right, l2=0.01).predict(features)
    held_out = cross_validated(features, right, groups, generator=generator, l2=0.01)
    assert ((seen > 0.5) == right).all()
    assert (np.ptp(held_out.reshape(60, 4), axis=1) < 1e-12).all()
    assert ((held_out > 0.5) == right).mean() < 0.7


def test_folds_are_even_and_by_the_generator() -> None:
    features, right = draw(100)
    groups = np.array([f"hole {number // 2}" for number in range(100)])
    first, again, other = (
        cross_validated(features, right, groups, generator=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_serving_gives_the_probability_that_was_fitted() -> None:
    generator = np.random.default_rng(3)
    features = generator.normal(size=(200, len(NAMES)))
    fitted = fit_logistic(features, generator.integers(0, 2, 200))
    calibration = Calibration(
        fingerprint="f", length_bias=(), prior_weight=1.0, threshold=0.0,
        weights=tuple(zip(NAMES, fitted.weights, strict=True)), intercept=fitted.intercept,
    )  # fmt: skip
    served = [calibration.probability(Features(**dict(zip(NAMES, row, strict=True)))) for row in features.tolist()]
    assert served == pytest.approx(fitted.predict(features).tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("features", "right", "l2", "message"),
    [
        ([[1.0], [2.0]], [0, 1], 0.0, r"l2=0\.0 must be"),
        ([[1.0], [2.0]], [0, 1], np.nan, "l2=nan must be"),
        ([[1.0], [np.nan]], [0, 1], 1.0, "feature 0 of candidate 1 is nan"),
        ([[1.0], [-np.inf]], [0, 1], 1.0, "feature 0 of candidate 1 is -inf"),
        ([[1.0], [2.0]], [0, 2], 1.0, r"labels must be 0 or 1, got 2\.0"),
        ([[1.0], [2.0]], [0, 1, 1], 1.0, r"right_N\.shape=\(3,\)"),
        ([1.0, 2.0], [0, 1], 1.0, r"features_NF\.shape=\(2,\)"),
        (np.zeros((0, 2)), [], 1.0, "N at least 1"),
    ],
)
def test_bad_data_is_named(features: list[list[float]], right: list[int], l2: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_logistic(features, right, l2=l2)


@pytest.mark.parametrize(
    ("groups", "num_folds", "message"),
    [([0, 0, 1, 1], 3, "num_folds=3 must be between 2 and the number of groups, 2"), ([0, 1, 2], 2, "3 groups for 4")],
)
def test_bad_folds_are_named(groups: list[int], num_folds: int, message: str) -> None:
    features = np.arange(4.0)[:, None]
    with pytest.raises(ValueError, match=message):
        cross_validated(features, [0, 1, 0, 1], groups, generator=np.random.default_rng(0), num_folds=num_folds)
