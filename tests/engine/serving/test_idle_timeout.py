"""The timer that runs while no client is connected."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dgemma_engine.protocol.status_messages import EngineState
from dgemma_engine.serving.idle_timeout import IdleTimeout


class Alarm:
    def __init__(self) -> None:
        self.due_in_s: float | None = None
        self.num_set = 0

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Alarm:
        self.due_in_s, self.num_set = delay_s, self.num_set + 1
        return self

    def cancel(self) -> None:
        self.due_in_s = None


def lifetime(alarm: Alarm, idle_s: float | None = 60.0) -> IdleTimeout:
    return IdleTimeout(idle_s=idle_s, failed_linger_s=10.0, call_later=alarm.call_later, end=lambda: None)


def test_update_sets_the_timer_only_without_clients() -> None:
    alarm = Alarm()
    life = lifetime(alarm)
    for num_clients, due_in_s in ((0, 60.0), (1, None), (2, None), (0, 60.0)):
        life.update(num_clients=num_clients, state=EngineState.READY)
        assert alarm.due_in_s == due_in_s


def test_update_does_not_start_over_while_nothing_changes() -> None:
    alarm = Alarm()
    life = lifetime(alarm)
    for state in (EngineState.LOADING, EngineState.LOADING, EngineState.READY):
        life.update(num_clients=0, state=state)
    assert alarm.num_set == 1


@pytest.mark.parametrize("idle_s", [None, 60.0])
def test_update_ends_a_failed_engine_soon(idle_s: float | None) -> None:
    alarm = Alarm()
    life = lifetime(alarm, idle_s)
    life.update(num_clients=0, state=EngineState.LOADING)
    life.update(num_clients=0, state=EngineState.FAILED)
    assert alarm.due_in_s == 10.0
    life.close()
    assert alarm.due_in_s is None


def test_no_limit_sets_no_timer() -> None:
    alarm = Alarm()
    lifetime(alarm, None).update(num_clients=0, state=EngineState.READY)
    assert alarm.num_set == 0


def test_limit_must_be_positive() -> None:
    with pytest.raises(ValueError, match="idle_s=0 must be positive"):
        lifetime(Alarm(), 0)
