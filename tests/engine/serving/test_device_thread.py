"""The device thread: order, supersession, cancellation, deadlines and faults, without a socket."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from dgemma_engine.errors import EngineFault
from dgemma_engine.protocol.messages import Draft, Finish
from dgemma_engine.protocol.status_messages import EngineState, Progress
from dgemma_engine.serving.device_thread import DeviceThread

from tests.engine.fake_engine import PATIENCE_S, STEP_S, SteppingEngine, context, load_failing

LONG = 4_000  # More steps than any test waits for.


class Run:
    """A device thread with a stepping engine, and the progress that it reported."""

    def __init__(
        self, load: Any = None, *, step_s: float = STEP_S, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.engine = SteppingEngine(step_s=step_s, sleep=sleep)
        self.progress: list[Progress] = []
        self.lost = threading.Event()
        self.device = DeviceThread(
            load or (lambda report: self.engine),
            clock=time.monotonic,
            on_progress=self.progress.append,
            on_device_lost=self.lost.set,
        )
        self.device.start()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_s, "the condition never came true"
            time.sleep(0.002)

    def occupy(self, owner: int = 1) -> Any:
        """Submits an endless request of another document and waits until it runs."""
        job = self.device.submit(owner, context(document="busy", steps=LONG))
        self.wait_for(lambda: any(seen.document == "busy" for seen in self.engine.seen))
        return job


@pytest.fixture
def run() -> Iterator[Run]:
    run = Run()
    yield run
    run.device.stop()
    assert run.device.join(PATIENCE_S)


def test_submit_answers_with_queue_and_total(run: Run) -> None:
    infill = run.device.submit(1, context("ab", "c")).answer.result(PATIENCE_S)
    assert (infill.text, infill.finish) == ("2|1", Finish.STABLE)
    assert infill.timings_ms["denoise"] == 1.0
    assert 0 <= infill.timings_ms["queue"] <= infill.timings_ms["total"]
    assert infill.timings_ms["total"] > 1.0  # Overwrites what the engine measured for itself.
    assert run.device.stages().keys() == {"denoise", "others", "queue", "total"}
    assert run.device.requests()["stable"] == 1


def test_newest_request_of_a_document_wins(run: Run) -> None:
    running = run.device.submit(1, context("1", steps=LONG))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    waiting = run.device.submit(1, context("12", steps=LONG))
    newest = run.device.submit(1, context("123"))
    finishes = [job.answer.result(PATIENCE_S).finish for job in (running, waiting, newest)]
    assert finishes == [Finish.CANCELLED, Finish.CANCELLED, Finish.STABLE]
    assert run.engine.seen[-1].prefix == "123"
    assert run.engine.denoising_steps < LONG


def test_replaced_request_is_never_started(run: Run) -> None:
    busy = run.occupy()
    run.device.submit(1, context("old"))
    newest = run.device.submit(1, context("new"))
    run.device.withdraw(busy)
    assert newest.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert [seen.prefix for seen in run.engine.seen if seen.document == "a.py"] == ["new"]


def test_requests_of_other_documents_and_connections_are_not_superseded(run: Run) -> None:
    jobs = [
        run.device.submit(1, context(document="a.py", steps=5)),
        run.device.submit(1, context(document="b.py", steps=5)),
        run.device.submit(2, context(document="a.py", steps=5)),
    ]
    assert [job.answer.result(PATIENCE_S).finish for job in jobs] == [Finish.STABLE] * 3


def test_one_connection_with_many_documents_does_not_delay_another(run: Run) -> None:
    busy = run.occupy()
    jobs = [run.device.submit(1, context(str(n), document=str(n))) for n in range(3)]
    jobs.append(run.device.submit(2, context("other", document="other")))
    assert jobs.pop().answer.result(PATIENCE_S).finish is Finish.STABLE
    run.device.withdraw(busy)
    for job in jobs:
        job.answer.result(PATIENCE_S)
    assert [seen.prefix for seen in run.engine.seen[1:]] == ["other", "0", "1", "2"]


def test_replacement_keeps_its_place_in_the_queue(run: Run) -> None:
    busy = run.occupy()
    run.device.submit(1, context("typed"))
    other = run.device.submit(1, context("other", document="b.py"))
    newest = run.device.submit(1, context("typed on"))
    run.device.withdraw(busy)
    for job in (other, newest):
        job.answer.result(PATIENCE_S)
    assert [seen.prefix for seen in run.engine.seen[1:]] == ["typed on", "other"]


@pytest.fixture
def gated() -> Iterator[tuple[Run, threading.Semaphore]]:
    """A device thread whose steps each wait for a permit."""
    gate = threading.Semaphore(0)
    run = Run(sleep=lambda _s: gate.acquire(timeout=PATIENCE_S))
    yield run, gate
    run.device.stop()
    gate.release(1_000)
    assert run.device.join(PATIENCE_S)


def test_connections_take_turns_and_a_new_one_waits_for_one_step_of_another(
    gated: tuple[Run, threading.Semaphore],
) -> None:
    run, gate = gated
    jobs = [run.device.submit(1, context("a", steps=6))]
    gate.release(1)
    run.wait_for(lambda: run.engine.order == ["a", "a"])
    jobs.append(run.device.submit(2, context("b", steps=3)))
    gate.release(2)
    run.wait_for(lambda: len(run.engine.order) == 4)
    jobs.append(run.device.submit(3, context("c", steps=2)))
    gate.release(100)
    assert [job.answer.result(PATIENCE_S).finish for job in jobs] == [Finish.STABLE] * 3
    assert "".join(run.engine.order) == "aa" + "ba" + "cb" + "acb" + "aa"
    assert jobs[1].answer.result().timings_ms["others"] > 0


def test_superseded_request_ends_before_the_newer_begins(gated: tuple[Run, threading.Semaphore]) -> None:
    run, gate = gated
    other = run.device.submit(1, context("other", steps=3))
    run.wait_for(lambda: run.engine.order == ["other"])
    older = run.device.submit(2, context("older", steps=LONG))
    gate.release(1)
    run.wait_for(lambda: run.engine.order == ["other", "older"])
    newer = run.device.submit(2, context("newer"))
    gate.release(100)
    assert [job.answer.result(PATIENCE_S).finish for job in (other, older, newer)] == [
        Finish.STABLE,
        Finish.CANCELLED,
        Finish.STABLE,
    ]
    assert run.engine.order == ["other", "older", "newer", "other", "other"]
    assert run.engine.runs[1].ended


def test_withdraw_stops_the_denoising_steps(run: Run) -> None:
    job = run.occupy()
    run.wait_for(lambda: run.engine.denoising_steps > 2)
    run.device.withdraw(job)
    assert job.answer.result(PATIENCE_S).finish is Finish.CANCELLED
    steps = run.engine.denoising_steps
    time.sleep(0.05)
    assert run.engine.denoising_steps == steps < LONG


def test_withdrawn_while_waiting_is_not_started(run: Run) -> None:
    busy = run.occupy()
    waiting = run.device.submit(1, context("never"))
    run.device.withdraw(waiting)
    assert waiting.answer.result(PATIENCE_S).finish is Finish.CANCELLED
    run.device.withdraw(busy)
    run.device.submit(1, context("after")).answer.result(PATIENCE_S)
    assert "never" not in [seen.prefix for seen in run.engine.seen]
    assert run.device.requests()["cancelled"] == 2


def test_expire_answers_waiting_requests_and_leaves_the_running_one(run: Run) -> None:
    busy = run.occupy()
    waiting = run.device.submit(1, context())
    run.device.expire(waiting)
    run.device.expire(busy)
    assert waiting.answer.result(PATIENCE_S).finish is Finish.DEADLINE
    assert not busy.answer.done()


def test_deadline_counts_from_arrival(run: Run) -> None:
    busy = run.occupy()
    late = run.device.submit(1, context("late", deadline_ms=20))
    time.sleep(0.05)
    run.device.withdraw(busy)
    infill = late.answer.result(PATIENCE_S)
    assert infill.finish is Finish.DEADLINE
    assert infill.timings_ms["queue"] >= 20
    assert "late" not in [seen.prefix for seen in run.engine.seen]


def test_deadline_of_zero_is_already_due(run: Run) -> None:
    infill = run.device.submit(1, context(deadline_ms=0, steps=LONG)).answer.result(PATIENCE_S)
    assert (infill.text, infill.finish) == ("", Finish.DEADLINE)


def test_fault_answers_one_request_and_quotes_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    job = run.device.submit(1, context("TOP_SECRET", path="fault"))
    with pytest.raises(EngineFault, match=r"the engine failed on this request \(RuntimeError\)"):
        job.answer.result(PATIENCE_S)
    assert run.device.submit(1, context()).answer.result(PATIENCE_S).finish is Finish.STABLE
    assert run.device.requests()["fault"] == 1
    assert "filling" in caplog.text  # The place is there,
    assert "TOP_SECRET" not in caplog.text  # the text is not.


def test_load_reports_progress_and_requests_wait_for_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loaded = threading.Event()

    def load(report: Callable[[int, str], None]) -> SteppingEngine:
        report(40, "reading")
        loaded.wait(PATIENCE_S)
        return SteppingEngine()

    run = Run(load)
    early = run.device.submit(1, context())
    run.wait_for(lambda: run.device.progress.percent == 40)
    assert run.device.state is EngineState.LOADING
    assert run.device.engine is None
    loaded.set()
    assert early.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert [(p.state, p.percent) for p in run.progress] == [(EngineState.LOADING, 40), (EngineState.READY, 100)]
    assert "stepping is loaded on cpu in float32; its layers are not compiled (told not to)" in caplog.text
    run.device.stop()


def test_load_failure_answers_waiting_and_later_requests() -> None:
    started = threading.Event()

    def load(report: Callable[[int, str], None]) -> SteppingEngine:
        started.wait(PATIENCE_S)
        return load_failing(report)

    run = Run(load)
    early = run.device.submit(1, context())
    started.set()
    message = "config.json: is missing; download the model again"
    with pytest.raises(EngineFault, match=message):
        early.answer.result(PATIENCE_S)
    with pytest.raises(EngineFault, match=message):
        run.device.submit(1, context()).answer.result(PATIENCE_S)
    assert run.device.progress == Progress(state=EngineState.FAILED, percent=0, message=message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("x", name="torch"), "torch is not installed; run: pip install 'dgemma-lsp[engine]'"),
        (OSError("disk\nfull"), "the model cannot be loaded (OSError: disk full); the engine's log has the place"),
        (AssertionError(), "the model cannot be loaded (AssertionError); the engine's log has the place"),
    ],
)
def test_load_failure_is_reported_in_one_line_with_a_remedy(
    error: Exception, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    def load(report: Callable[[int, str], None]) -> SteppingEngine:
        raise error

    run = Run(load)
    run.wait_for(lambda: run.device.state is EngineState.FAILED)
    assert run.device.progress.message == message
    assert message in caplog.text
    assert ("test_device_thread.py" in caplog.messages[-1]) == ("log has the place" in message)


def test_stop_answers_everything(run: Run) -> None:
    busy = run.occupy()
    waiting = run.device.submit(1, context())
    run.device.stop()
    late = run.device.submit(1, context())
    assert {job.answer.result(PATIENCE_S).finish for job in (busy, waiting, late)} == {Finish.CANCELLED}
    assert run.device.join(PATIENCE_S)


def test_state_is_busy_while_a_request_runs(run: Run) -> None:
    busy = run.occupy()
    assert run.device.state is EngineState.BUSY
    run.device.withdraw(busy)
    run.wait_for(lambda: run.device.state is EngineState.READY)


def test_drafts_are_reported_before_the_answer(run: Run) -> None:
    told: list[tuple[Draft, bool]] = []
    job = run.device.submit(
        1, context("x", steps=3, drafts="id"), lambda draft: told.append((draft, job.answer.done()))
    )
    job.answer.result(PATIENCE_S)
    assert [(draft.request, draft.text, answered) for draft, answered in told] == [
        ("id", f"{step}:x", False) for step in (1, 2, 3)
    ]


def test_drafts_without_a_listener_are_dropped(run: Run) -> None:
    job = run.device.submit(1, context(steps=3, drafts="id"))
    assert job.answer.result(PATIENCE_S).finish is Finish.STABLE


@pytest.mark.parametrize("way", ["withdraw", "supersede", "stop"])
def test_step_that_ends_after_the_cancellation_sends_no_draft(way: str) -> None:
    run, told = Run(step_s=0.3), list[Draft]()
    job = run.device.submit(1, context(steps=LONG, drafts="id"), told.append)
    run.wait_for(lambda: bool(run.engine.runs) and run.engine.runs[0].num_begun == 2)
    if way == "withdraw":
        run.device.withdraw(job)
    elif way == "supersede":
        run.device.submit(1, context())
    else:
        run.device.stop()
    assert job.answer.result(PATIENCE_S).finish is Finish.CANCELLED
    assert (run.engine.runs[0].num_steps, run.engine.runs[0].num_after_cancel) == (2, 0)
    assert len(told) == 1
    run.device.stop()
    assert run.device.join(PATIENCE_S)


def test_abandoned_request_sends_no_drafts() -> None:
    """A connection that ends cancels the future before the daemon can withdraw the job."""
    run, told = Run(step_s=0.3), list[Draft]()
    job = run.device.submit(1, context(steps=2, drafts="id"), told.append)
    run.wait_for(lambda: bool(run.engine.runs) and run.engine.runs[0].num_begun == 2)
    assert job.answer.cancel()
    run.wait_for(lambda: run.engine.runs[0].ended)
    assert len(told) == 1
    run.device.stop()
    assert run.device.join(PATIENCE_S)


def test_late_request_is_answered_once_and_ends(run: Run) -> None:
    late = run.occupy()
    run.device.overdue(late)
    assert late.answer.done()
    assert (late.answer.result().finish, late.answer.result().text) == (Finish.DEADLINE, "")
    assert run.device.submit(1, context("next")).answer.result(PATIENCE_S).finish is Finish.STABLE
    assert run.device.requests()["deadline"] == 1
    assert run.device.requests()["cancelled"] == 0


def test_request_that_was_answered_is_not_late(run: Run) -> None:
    job = run.device.submit(1, context("ab"))
    infill = job.answer.result(PATIENCE_S)
    run.device.overdue(job)
    assert job.answer.result() is infill
    assert run.device.requests()["deadline"] == 0


def test_speculation_runs_while_no_request_waits(run: Run) -> None:
    job = run.device.submit(1, context("ab", speculative=True))
    assert job.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert run.device.stages() == {}, "a speculative request is not measured: nobody waited"


@pytest.mark.parametrize(("owner", "document"), [(1, "a.py"), (1, "b.py"), (2, "a.py")])
def test_any_real_request_preempts_a_speculation_at_the_next_step(run: Run, owner: int, document: str) -> None:
    speculation = run.device.submit(1, context("spec", steps=LONG, speculative=True))
    run.wait_for(lambda: run.engine.denoising_steps > 2)
    real = run.device.submit(owner, context("real", document=document))
    assert real.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert speculation.answer.result(PATIENCE_S).finish is Finish.CANCELLED
    assert run.engine.runs[0].num_after_cancel == 0


def test_speculation_waits_for_every_request_of_its_connection(run: Run) -> None:
    busy = run.device.submit(1, context(document="busy", steps=LONG))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    speculation = run.device.submit(1, context("spec", speculative=True))
    real = run.device.submit(1, context("real", document="b.py"))
    run.device.withdraw(busy)
    for job in (speculation, real):
        assert job.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert [seen.prefix for seen in run.engine.seen[1:]] == ["real", "spec"]


def test_speculation_is_skipped_while_another_connection_is_served(run: Run) -> None:
    run.occupy(owner=99)
    speculation = run.device.submit(1, context("spec", speculative=True))
    assert speculation.answer.result(PATIENCE_S).finish is Finish.CANCELLED
    assert len(run.engine.seen) == 1


def test_speculation_does_not_supersede_the_real_request_of_its_document(run: Run) -> None:
    real = run.device.submit(1, context("real", steps=20))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    speculation = run.device.submit(1, context("spec", speculative=True))
    assert speculation.answer.result(PATIENCE_S).finish is Finish.CANCELLED
    assert real.answer.result(PATIENCE_S).finish is Finish.STABLE


def test_real_request_replaces_the_waiting_speculation_of_its_document(run: Run) -> None:
    busy = run.device.submit(1, context(document="busy", steps=LONG))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    speculation = run.device.submit(1, context("spec", speculative=True))
    real = run.device.submit(1, context("real"))
    assert speculation.answer.result(PATIENCE_S).finish is Finish.CANCELLED
    run.device.withdraw(busy)
    assert real.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert "spec" not in [seen.prefix for seen in run.engine.seen]


def test_newest_speculation_of_a_document_wins(run: Run) -> None:
    older = run.device.submit(1, context("older", steps=LONG, speculative=True))
    run.wait_for(lambda: run.engine.denoising_steps > 0)
    newest = run.device.submit(1, context("newest", speculative=True))
    assert newest.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert older.answer.result(PATIENCE_S).finish is Finish.CANCELLED


def test_stop_answers_a_speculation_that_waits(run: Run) -> None:
    busy = run.device.submit(1, context(document="busy", steps=LONG))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    speculation = run.device.submit(1, context("spec", speculative=True))
    run.device.stop()
    assert {job.answer.result(PATIENCE_S).finish for job in (busy, speculation)} == {Finish.CANCELLED}


def test_on_demand_yields_to_keystroke_requests_and_continues(run: Run) -> None:
    fill = run.device.submit(1, context("fill", document="a.py#fill", steps=200, on_demand=True))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    for document in ("a.py", "b.py"):
        typed = run.device.submit(1, context("typed", document=document))
        assert typed.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert not fill.answer.done()
    assert fill.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert run.engine.runs[0].num_steps == 200, "no step was repeated"
    assert run.device.state is EngineState.READY


def test_on_demand_does_not_yield_to_on_demand_or_speculation(run: Run) -> None:
    first = run.device.submit(1, context("first", document="a", steps=LONG, on_demand=True))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    second = run.device.submit(2, context("second", document="b", on_demand=True))
    speculation = run.device.submit(1, context("spec", document="c", speculative=True))
    steps = run.engine.runs[0].num_steps
    run.wait_for(lambda: run.engine.runs[0].num_steps > steps + 5)
    assert len(run.engine.seen) == 1
    run.device.withdraw(first)
    assert second.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert speculation.answer.result(PATIENCE_S).finish is Finish.CANCELLED


def test_on_demand_advances_between_two_keystroke_requests(run: Run) -> None:
    fill = run.device.submit(1, context("fill", document="a.py#fill", steps=LONG, on_demand=True))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    typed = [run.device.submit(1, context("typed", document=str(number))) for number in range(10)]
    before = run.engine.runs[0].num_steps
    for job in typed:
        job.answer.result(PATIENCE_S)
    assert run.engine.runs[0].num_steps >= before + 9, "a step between any two requests"
    run.device.withdraw(fill)
    assert fill.answer.result(PATIENCE_S).finish is Finish.CANCELLED


def test_on_demand_is_answered_at_its_deadline_while_another_is_served(run: Run) -> None:
    fill = run.device.submit(1, context("fill", document="a.py#fill", steps=LONG, on_demand=True))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    typed = run.device.submit(1, context("typed", steps=LONG))
    run.wait_for(lambda: len(run.engine.seen) == 2)
    run.device.overdue(fill)
    assert fill.answer.result(PATIENCE_S).finish is Finish.DEADLINE
    assert not typed.answer.done()
    run.device.withdraw(typed)
    assert run.device.submit(2, context("next")).answer.result(PATIENCE_S).finish is Finish.STABLE


def test_newer_on_demand_of_a_document_supersedes_the_older(run: Run) -> None:
    older = run.device.submit(1, context("older", steps=LONG, on_demand=True))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    newer = run.device.submit(1, context("newer", on_demand=True))
    assert newer.answer.result(PATIENCE_S).finish is Finish.STABLE
    assert older.answer.result(PATIENCE_S).finish is Finish.CANCELLED


def test_stop_ends_on_demand_and_the_request_served_meanwhile(run: Run) -> None:
    fill = run.device.submit(1, context("fill", document="a.py#fill", steps=LONG, on_demand=True))
    run.wait_for(lambda: len(run.engine.seen) == 1)
    typed = run.device.submit(1, context("typed", steps=LONG))
    run.wait_for(lambda: len(run.engine.seen) == 2)
    run.device.stop()
    assert {job.answer.result(PATIENCE_S).finish for job in (fill, typed)} == {Finish.CANCELLED}


def test_on_demand_durations_are_not_measured(run: Run) -> None:
    run.device.submit(1, context("fill", on_demand=True)).answer.result(PATIENCE_S)
    assert run.device.stages() == {}


def cuda_error(what: str) -> Exception:
    return torch.AcceleratorError(f"CUDA error: {what}\nCUDA kernel errors might be reported later")


def wrapped(error: Exception) -> Exception:
    try:
        raise RuntimeError("the step failed") from error
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("outer", [lambda error: error, wrapped], ids=["itself", "as a cause"])
def test_lost_device_answers_all_requests_and_asks_for_a_new_process(
    run: Run, outer: Callable[[Exception], Exception]
) -> None:
    run.engine.fault = outer(cuda_error("an illegal memory access was encountered"))
    jobs = [run.occupy(), run.device.submit(2, context(path="fault"))]
    jobs += [run.device.submit(1, context(document=name)) for name in ("waits.py", "too.py")]
    assert run.lost.wait(PATIENCE_S)
    assert run.device.join(PATIENCE_S)
    for job in jobs:
        with pytest.raises(EngineFault, match=r"the device failed .*; the engine ends, and the next request starts"):
            job.answer.result(0)
    assert run.device.submit(1, context()).answer.result(PATIENCE_S).finish is Finish.CANCELLED
    assert run.device.requests()["fault"] == len(jobs)


@pytest.mark.parametrize("error", [cuda_error("out of memory"), torch.OutOfMemoryError("CUDA out of memory")])
def test_device_without_memory_is_not_lost(run: Run, error: Exception) -> None:
    run.engine.fault = error
    with pytest.raises(EngineFault, match="failed on this request"):
        run.device.submit(1, context(path="fault")).answer.result(PATIENCE_S)
    assert run.device.submit(1, context()).answer.result(PATIENCE_S).finish is Finish.STABLE
    assert not run.lost.is_set()
