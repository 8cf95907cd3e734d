"""Durations that follow the machine."""

from __future__ import annotations

from dgemma_engine.scheduling.duration_estimator import Pace


def test_unknown_stage_is_expected_to_take_nothing() -> None:
    assert Pace().expected_s("step") == 0


def test_first_duration_is_believed_and_later_ones_move_it() -> None:
    pace = Pace()
    pace.learn("step", 4.0)
    assert pace.expected_s("step") == 4
    pace.learn("step", 8.0)
    assert 4 < pace.expected_s("step") < 8
    for _ in range(50):
        pace.learn("step", 1.0)
    assert abs(pace.expected_s("step") - 1) < 0.01
    assert pace.expected_s("rank") == 0
