"""The share of a deadline that remains after the time of the network."""

from __future__ import annotations

import pytest
from dgemma_engine.remote.network_time import NetworkTime


@pytest.mark.parametrize(
    ("round_trip_ms", "left_ms", "sent_ms"),
    [(20, 3_000, 2_920), (20, 100, 78), (400, 300, 60), (20, 0, 1), (0, 50, 49), (0, -10, 1)],
)
def test_deadline_leaves_the_answer_time_to_come_back(round_trip_ms: float, left_ms: float, sent_ms: float) -> None:
    network = NetworkTime()
    network.learn(round_trip_ms + 5, 5)
    assert network.remaining_ms(left_ms) == sent_ms


def test_late_engine_gets_less_time_and_slowly_more_again() -> None:
    network = NetworkTime()
    network.learn(20, 0)
    network.overran(300)
    assert network.remaining_ms(3_000) == 2_680
    network.overran(50)
    assert network.remaining_ms(3_000) == pytest.approx(3_000 - 20 - 250)
    network.overran(400)
    assert network.remaining_ms(3_000) == 2_580


def test_new_measurement_moves_the_average() -> None:
    network = NetworkTime()
    assert [network.learn(total_ms, 10) for total_ms in (30, 130, 5)] == [20, 120, 0]
    assert network.round_trip_ms == pytest.approx(0.7 * (20 + 0.3 * 100))


def test_measurement_during_a_sleep_is_ignored() -> None:
    network = NetworkTime()
    assert network.learn(5 * 3_600_000, 10) == 0
    network.learn(30, 10)
    assert network.learn(5 * 3_600_000, 10) == 20
    assert network.round_trip_ms == 20


@pytest.mark.parametrize(("left_ms", "is_too_late"), [(21, False), (20, True), (0, True), (-5, True)])
def test_request_without_time_for_its_answer_is_too_late(left_ms: float, is_too_late: bool) -> None:
    network = NetworkTime()
    network.learn(20, 0)
    assert network.is_too_late(left_ms) is is_too_late
