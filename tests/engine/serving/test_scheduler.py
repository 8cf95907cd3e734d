"""Which request runs next, without thread, clock or engine."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from dgemma_engine.protocol.messages import Context, Finish, Infill
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.serving.scheduler import Job, Scheduler


def job(name: str, owner: int = 1, document: str | None = None, *, deadline_s: float = 10.0, **options: Any) -> Job:
    """Returns a request, by default of a document of its own."""
    return Job(
        owner=owner,
        context=Context(document=name if document is None else document, prefix=name, suffix="", **options),
        arrival_s=0.0,
        deadline_s=deadline_s,
        cancel=Cancel(deadline_s=deadline_s, clock=lambda: 0.0),
        answer=Future(),
    )


def names(jobs: Any) -> list[str]:
    return [one.context.prefix for one in jobs]


class Bench:
    """A scheduler whose decisions a test can read."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()

    def add(self, *jobs: Job) -> list[str]:
        """Adds jobs and cancels what they supersede, as the device thread does."""
        cancelled: list[Job] = []
        for one in jobs:
            cancelled += self.scheduler.add(one)
        for one in cancelled:
            one.cancel.set()
        return names(cancelled)

    def steps(self, count: int, now_s: float = 0.0) -> str:
        """Returns the names of the jobs that make the next steps; a cancelled job ends with its step."""
        made: list[str] = []
        for _ in range(count):
            chosen, _late = self.scheduler.schedule(now_s)
            if chosen is None:
                break
            made.append(chosen.context.prefix)
            if chosen.cancel.cancelled:
                self.scheduler.finish(chosen)
        return "".join(made)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_empty_scheduler_chooses_nothing(bench: Bench) -> None:
    assert bench.scheduler.schedule(0.0) == (None, [])


def test_newest_job_of_a_document_cancels_a_running_and_replaces_a_waiting_one(bench: Bench) -> None:
    running, waiting, newest = (job(name, document="d") for name in "rwn")
    assert bench.add(running) == []
    assert bench.steps(1) == "r"
    assert bench.add(waiting) == ["r"]
    assert bench.add(newest) == ["w", "r"]
    assert bench.steps(3) == "rnn", "the cancelled one ends first"


def test_replacement_keeps_its_place(bench: Bench) -> None:
    busy = job("busy")
    bench.add(busy)
    bench.steps(1)
    bench.add(job("old", document="d"), job("other"), job("new", document="d"))
    busy.cancel.set()
    bench.steps(1)
    assert bench.steps(1) == "new"


def test_connections_take_turns_and_a_new_one_goes_first(bench: Bench) -> None:
    bench.add(job("a", 1))
    assert bench.steps(2) == "aa"
    bench.add(job("b", 2))
    assert bench.steps(3) == "bab"
    bench.add(job("c", 3))
    assert bench.steps(6) == "cabcab"


def test_one_connection_has_one_request_running(bench: Bench) -> None:
    bench.add(job("a", 1), job("b", 1), job("c", 2))
    assert bench.steps(4) == "acac"


def test_started_jobs_have_the_instant_and_late_ones_are_not_started(bench: Bench) -> None:
    late, soon = job("late", 1, deadline_s=1.0), job("soon", 2, deadline_s=3.0)
    bench.add(late, soon)
    chosen, missed = bench.scheduler.schedule(2.0)
    assert (chosen, missed, soon.started_s, late.started_s) == (soon, [late], 2.0, None)


def test_late_job_that_cannot_start_yet_is_left_to_its_timer(bench: Bench) -> None:
    late = job("late", 1, deadline_s=1.0)
    bench.add(job("a", 1))
    bench.steps(1)
    bench.add(late)
    assert bench.scheduler.schedule(2.0)[1] == []
    assert bench.scheduler.remove(late)
    assert not bench.scheduler.remove(late)


def test_on_demand_gets_a_step_after_each_that_ended_and_all_while_it_is_alone(bench: Bench) -> None:
    bench.add(job("f", on_demand=True))
    assert bench.steps(2) == "ff"
    typed = job("t")
    bench.add(typed)
    assert bench.steps(3) == "ttt"
    bench.scheduler.finish(typed)
    bench.add(job("u"))
    assert bench.steps(3) == "fuu"


def test_on_demand_jobs_run_one_at_a_time_across_connections(bench: Bench) -> None:
    bench.add(job("f", 1, on_demand=True), job("g", 2, on_demand=True))
    assert bench.steps(3) == "fff"


def test_speculative_runs_while_there_is_no_other_job(bench: Bench) -> None:
    bench.add(job("s", speculative=True))
    assert bench.steps(2) == "ss"
    assert bench.add(job("r", 2)) == ["s"]
    assert bench.steps(3) == "srr"


def test_speculative_waits_for_its_own_connection(bench: Bench) -> None:
    real = job("r")
    bench.add(real)
    bench.steps(1)
    assert bench.add(job("s", speculative=True)) == []
    assert bench.steps(2) == "rr"
    bench.scheduler.finish(real)
    assert bench.steps(1) == "s"


@pytest.mark.parametrize(("owner", "document"), [(2, "x"), (1, "r")])
def test_speculative_is_refused_while_another_or_its_own_document_is_served(
    bench: Bench, owner: int, document: str
) -> None:
    bench.add(job("r", 1))
    bench.steps(1)
    assert bench.add(job("s", owner, document, speculative=True)) == ["s"]


def test_speculative_may_run_after_an_answered_job(bench: Bench) -> None:
    real = job("r", 2)
    bench.add(real)
    bench.steps(1)
    real.answer.set_result(Infill(text="", finish=Finish.DEADLINE))
    assert bench.add(job("s", 1, speculative=True)) == []


def test_newest_speculative_of_a_document_replaces_older_ones(bench: Bench) -> None:
    bench.add(job("r"))
    bench.steps(1)
    assert bench.add(job("s", document="d", speculative=True)) == []
    assert bench.add(job("t", document="d", speculative=True)) == ["s"]
    assert bench.add(job("u", document="d")) == ["t"], "a real request replaces it too"


def test_late_speculative_is_not_started(bench: Bench) -> None:
    late = job("s", deadline_s=1.0, speculative=True)
    bench.add(late)
    assert bench.scheduler.schedule(1.0) == (None, [late])


def test_drain_returns_waiting_jobs_and_leaves_running_ones(bench: Bench) -> None:
    running = job("r")
    bench.add(running)
    bench.steps(1)
    bench.add(job("w"), job("s", speculative=True))
    assert names(bench.scheduler.drain()) == ["w", "s"]
    assert names(bench.scheduler.running) == ["r"]
    assert bench.scheduler.drain() == []
