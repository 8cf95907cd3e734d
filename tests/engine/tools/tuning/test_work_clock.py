from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from dgemma_engine.tools.tuning.work_clock import WorkClock


@dataclass
class Machine:
    """A machine whose time advances by sleeping, with events at given seconds."""

    answering: frozenset[int] = frozenset()
    battery_from_s: float = float("inf")
    interrupted_from_s: float = float("inf")
    now_s: float = 100.0
    slept: list[float] = field(default_factory=list[float])

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def clock(self) -> WorkClock:
        return WorkClock(
            clock=lambda: self.now_s,
            sleep=self.sleep,
            is_answering=lambda: int(self.now_s) in self.answering,
            is_on_battery=lambda: self.now_s >= self.battery_from_s,
            is_interrupted=lambda: self.now_s >= self.interrupted_from_s,
        )


def test_work_continues_at_once_while_no_request_is_answered() -> None:
    machine = Machine()
    clock = machine.clock()
    assert not clock.must_stop() and machine.slept == [] and clock.paused_s == 0
    machine.now_s += 5
    assert clock() == 105


def test_work_waits_until_no_request_was_answered_for_three_seconds() -> None:
    machine = Machine(answering=frozenset({100, 101, 104}))
    clock = machine.clock()
    assert not clock.must_stop()
    assert 108 <= machine.now_s <= 108.5, "quiet from 102 to 104, and again from 105 on"
    assert clock.paused_s == machine.now_s - 100 and clock() == 100


def test_pauses_add_up_and_do_not_count_as_work() -> None:
    machine = Machine(answering=frozenset({100, 110}))
    clock = machine.clock()
    assert not clock.must_stop()
    machine.now_s = 110.0
    assert not clock.must_stop()
    assert clock() == 110 - (machine.slept and sum(machine.slept)) + (machine.now_s - 110)


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine(battery_from_s=0), "the machine runs on battery"),
        (Machine(interrupted_from_s=0), "interrupted"),
        (Machine(answering=frozenset(range(1_000)), battery_from_s=103), "the machine runs on battery"),
        (Machine(answering=frozenset(range(1_000)), interrupted_from_s=103), "interrupted"),
    ],
)
def test_work_ends_on_battery_or_when_asked_to_also_while_it_waits(machine: Machine, reason: str) -> None:
    clock = machine.clock()
    assert clock.must_stop() and clock.stop_reason == reason
    assert machine.now_s <= 103.5


def test_each_check_reads_the_activity_once() -> None:
    """A reading reports only answers since the previous reading."""
    looks: Iterator[bool] = iter([True, *[False] * 100])
    machine = Machine()
    clock = WorkClock(
        clock=lambda: machine.now_s,
        sleep=machine.sleep,
        is_answering=lambda: next(looks),
        is_on_battery=lambda: False,
        is_interrupted=lambda: False,
    )
    assert not clock.must_stop() and 3 <= clock.paused_s <= 3.5
