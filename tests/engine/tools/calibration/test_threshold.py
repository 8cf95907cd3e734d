"""The threshold rule on cases that can be counted by hand."""

from __future__ import annotations

import pytest
from dgemma_engine.tools.calibration.threshold import CoveragePoint, choose_threshold, coverage_curve


def curve() -> tuple[CoveragePoint, ...]:
    """Ten holes; of those at or above 0.9, 0.8, ... are right 1/1, 1/2, 2/3, 3/4, 3/5, 3/6, 3/7, 3/8, 3/9, 3/10."""
    predictions = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    return coverage_curve(predictions, [1, 0, 1, 1, 0, 0, 0, 0, 0, 0])


def test_curve_counts_what_is_shown_and_right() -> None:
    points = curve()
    assert [point.threshold for point in points] == [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [point.num_shown for point in points] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert [point.coverage for point in points] == pytest.approx([n / 10 for n in range(10, 0, -1)])
    rights = [point.precision * point.num_shown for point in points]
    assert rights == pytest.approx([3, 3, 3, 3, 3, 3, 3, 2, 1, 1])


def test_equal_predictions_are_shown_together_whatever_their_order() -> None:
    one, other = coverage_curve([0.5, 0.5, 0.2], [1, 0, 0]), coverage_curve([0.2, 0.5, 0.5], [0, 0, 1])
    assert one == other
    assert [(point.threshold, point.num_shown, point.precision) for point in one] == [(0.2, 3, 1 / 3), (0.5, 2, 0.5)]


def test_holes_without_candidates_lower_coverage_alone() -> None:
    point = coverage_curve([0.5, 0.5], [1, 0], num_silent=2)[0]
    assert (point.coverage, point.precision) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("target", "min_shown", "threshold", "reached"),
    [
        (0.0, 1, 0.05, True),
        (0.3, 1, 0.05, True),
        (0.31, 1, 0.1, True),
        (0.6, 1, 0.5, True),
        (0.7, 1, 0.6, True),
        (0.76, 1, 0.9, True),
        (0.76, 2, 0.6, False),
        (1.0, 3, 0.6, False),
        (1.0, 10, 0.05, False),
    ],
)
def test_smallest_threshold_that_reaches_the_target(
    target: float, min_shown: int, threshold: float, reached: bool
) -> None:
    choice = choose_threshold(curve(), target=target, min_shown=min_shown)
    assert (choice.point.threshold, choice.reached, choice.target) == (threshold, reached, target)


def test_of_equally_precise_thresholds_the_one_that_shows_more_is_taken() -> None:
    points = coverage_curve([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    choice = choose_threshold(points, target=0.9, min_shown=2)
    assert (choice.point.threshold, choice.reached) == (0.7, False)
    points = coverage_curve([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])
    choice = choose_threshold(points, target=0.9, min_shown=2)
    assert (choice.point.threshold, choice.point.precision) == (0.6, 0.5)


@pytest.mark.parametrize(
    ("target", "min_shown", "message"),
    [(1.5, 1, "target=1.5 must be"), (-0.1, 1, "target=-0.1 must be"), (0.3, 11, "only 10 holes have a candidate")],
)
def test_bad_choice_is_named(target: float, min_shown: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_threshold(curve(), target=target, min_shown=min_shown)


@pytest.mark.parametrize(
    ("predictions", "right", "num_silent", "message"),
    [
        ([], [], 0, "at least one hole"),
        ([0.5], [1, 0], 0, r"correct\.shape=\(2,\)"),
        ([1.5], [1], 0, "between 0 and 1"),
        ([float("nan")], [1], 0, "between 0 and 1"),
        ([0.5], [1], -1, "num_silent=-1"),
    ],
)
def test_bad_predictions_are_named(predictions: list[float], right: list[int], num_silent: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coverage_curve(predictions, right, num_silent=num_silent)
