"""How long no request is sent to a busy server."""

from __future__ import annotations

import pytest
from dgemma_engine.remote.back_off import BackOff


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_pause_doubles_while_the_server_stays_busy() -> None:
    clock = Clock()
    back_off, pauses = BackOff(clock), list[float]()
    for _ in range(7):
        back_off.busy(0)
        pauses.append(back_off.left_s)
        clock.now_s += back_off.left_s
        assert not back_off.left_s
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    back_off.answered()
    back_off.busy(0)
    assert back_off.left_s == 1


def test_simultaneous_refusals_count_once() -> None:
    back_off = BackOff(Clock())
    for _ in range(6):
        back_off.busy(0)
    assert back_off.left_s == 1


@pytest.mark.parametrize(("wanted_s", "pause_s"), [(0.2, 1), (45, 45), (10_000, 600)])
def test_pause_is_the_requested_one_between_1_and_600_s(wanted_s: float, pause_s: float) -> None:
    back_off = BackOff(Clock())
    back_off.busy(wanted_s)
    assert back_off.left_s == pause_s
    back_off.busy(0)
    assert back_off.left_s == pause_s
