"""Bins, figures of merit and intervals with known values."""

from __future__ import annotations

import numpy as np
import pytest
from dgemma_engine.tools.calibration.reliability import reliability, wilson_interval


def test_bins_hold_equal_counts_and_their_means() -> None:
    result = reliability([0.4, 0.1, 0.3, 0.2], [1, 0, 1, 0], num_bins=2)
    assert [(b.num, b.num_right) for b in result.bins] == [(2, 0), (2, 2)]
    assert [b.predicted for b in result.bins] == pytest.approx([0.15, 0.35])
    assert [b.observed for b in result.bins] == [0.0, 1.0]
    assert result.calibration_error == pytest.approx((0.15 + 0.65) / 2)
    assert result.brier == pytest.approx((0.01 + 0.04 + 0.49 + 0.36) / 4)
    assert (result.num, result.base_rate) == (4, 0.5)


def test_equal_predictions_stay_together_whatever_their_order() -> None:
    """Sorted by label, a constant prediction that is perfectly calibrated would else look perfectly wrong."""
    result = reliability([0.5] * 10, [0] * 5 + [1] * 5, num_bins=5)
    assert [b.num for b in result.bins] == [10]
    assert result.calibration_error == 0.0


@pytest.mark.parametrize("num", [1, 3, 9])
def test_fewer_predictions_than_bins_get_one_bin_each(num: int) -> None:
    result = reliability(np.linspace(0.1, 0.9, num), [1] * num)
    assert [b.num for b in result.bins] == [1] * num


def test_true_probabilities_have_a_small_error_and_shifted_ones_the_shift() -> None:
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.1, 0.7, 20_000)
    right = generator.random(20_000) < probability
    assert reliability(probability, right).calibration_error < 0.015
    assert reliability(probability + 0.2, right).calibration_error == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize(
    ("num_right", "num", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(num_right: int, num: int, low: float, high: float) -> None:
    assert wilson_interval(num_right, num) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("predictions", "right", "num_bins", "message"),
    [
        ([], [], 10, "N at least 1"),
        ([0.5], [1, 0], 10, r"correct\.shape=\(2,\)"),
        ([-0.5], [1], 10, "between 0 and 1"),
        ([0.5], [1], 0, "num_bins=0"),
    ],
)
def test_bad_predictions_are_named(predictions: list[float], right: list[int], num_bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reliability(predictions, right, num_bins=num_bins)
