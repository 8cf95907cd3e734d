"""Timers, moving averages and percentiles of stages."""

from __future__ import annotations

import pytest
from dgemma_engine.protocol.status_messages import StageTimes
from dgemma_engine.scheduling.timing import DurationEstimator, LatencyStats, StageTimer


def test_stage_that_was_not_measured_has_no_duration() -> None:
    assert DurationEstimator().mean_s == {}


def test_first_duration_is_the_average_and_later_ones_move_it() -> None:
    estimator = DurationEstimator()
    estimator.add("step", 4.0)
    assert estimator.mean_s["step"] == 4
    estimator.add("step", 8.0)
    assert 4 < estimator.mean_s["step"] < 8
    for _ in range(50):
        estimator.add("step", 1.0)
    assert abs(estimator.mean_s["step"] - 1) < 0.01
    assert "rank" not in estimator.mean_s


def test_stage_is_slow_after_four_durations_of_ten_times_the_least_average() -> None:
    estimator = DurationEstimator()
    for seconds in (1.0, 1.0, 11.0, 11.0, 11.0):
        estimator.add("step", seconds)
        assert not estimator.is_slow("step")
    estimator.add("step", 11.0)
    assert estimator.is_slow("step") and not estimator.is_slow("rank")
    estimator.add("step", 9.0)
    assert not estimator.is_slow("step")


def test_stage_timer_returns_durations_in_order_and_the_total() -> None:
    instants = iter([1.0, 3.0, 3.5, 4.0])
    timer = StageTimer(lambda: next(instants))
    assert (timer.end("encode"), timer.end("denoise")) == (2.0, 0.5)
    assert list(timer.timings_ms().items()) == [("encode", 2_000.0), ("denoise", 500.0), ("total", 3_000.0)]


def test_percentiles_are_measured_values() -> None:
    stats = LatencyStats()
    for elapsed_ms in range(100, 0, -1):
        stats.add({"denoise": float(elapsed_ms)})
    stats.add({"queue": 3.0})
    assert stats.times() == {
        "denoise": StageTimes(count=100, p50_ms=50.0, p95_ms=95.0),
        "queue": StageTimes(count=1, p50_ms=3.0, p95_ms=3.0),
    }


def test_add_drops_the_oldest() -> None:
    stats = LatencyStats(size=2)
    for elapsed_ms in (1_000.0, 1.0, 2.0):
        stats.add({"total": elapsed_ms})
    assert stats.times()["total"] == StageTimes(count=2, p50_ms=1.0, p95_ms=2.0)


def test_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        LatencyStats(size=0)
