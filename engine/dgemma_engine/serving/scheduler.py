"""The one thread that touches the device: loads the model, then fills holes, those of several connections by turns.

Turns `Context` into a future `Infill`, with drafts on the way to it. Of one document's requests only the newest is
worth answering: it cancels the running one and takes the place of the waiting one. Each connection has one request
running; they take turns piece by piece, and a new one goes first. One on demand may run besides: it gets a piece when
another has ended, and all of them while there is no other. A speculative request runs only while nobody waits for
anything, and makes way at the next piece for whatever comes. Knows nothing of sockets.
"""

from __future__ import annotations

import gc
import logging
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from typing import Protocol

from dgemma_engine.errors import EngineError, EngineFault
from dgemma_engine.protocol.messages import Context, EngineState, Finish, Infill, OnDraft, Progress, StageTimes
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.latency_stats import StageRecord
from dgemma_engine.serving.job import Run, Ticket
from dgemma_engine.tracing.recorder import Recorder

_log = logging.getLogger(__name__)


class InfillEngine(Protocol):
    """A loaded model. Lives on the worker's thread; its attributes may be read from any."""

    model_name: str
    model_path: str
    device: str
    compiled: bool
    uncompiled_reason: str

    @property
    def denoising_steps(self) -> int:
        """Denoising steps since the start; never falls."""
        ...

    @property
    def device_memory_bytes(self) -> int:
        """Memory held on the accelerator; 0 on a CPU."""
        ...

    def filling(
        self, context: Context, cancel: Cancel, *, on_draft: OnDraft = ..., recorder: Recorder | None = ...
    ) -> Pieces[Infill]:
        """Answers one request, asking `cancel` before every piece. Requests of different documents may alternate.

        Args:
            context: the question; a draft is worth making only if it has `drafts`.
            cancel: its permission to go on.
            on_draft: told what the text looks like between steps; returns at once. Does nothing by default.
            recorder: told what every step did. None by default.
        """
        ...


Load = Callable[[Callable[[int, str], None]], InfillEngine]
"""Loads the model on the calling thread; its argument reports percent and a line for a person."""


class Worker:
    """Owner of the device thread. Every public method may be called from any other thread and returns at once.

    Args:
        load: makes the engine, on the device thread.
        clock: seconds that never go backwards.
        on_progress: told on the device thread how loading goes, and once when it ended.
    """

    def __init__(self, load: Load, *, clock: Callable[[], float], on_progress: Callable[[Progress], None]) -> None:
        self._load = load
        self._clock = clock
        self._on_progress = on_progress
        self._condition = threading.Condition()
        self._waiting: dict[tuple[int, str], Ticket] = {}
        self._speculations: dict[tuple[int, str], Ticket] = {}
        self._runs: list[Run] = []
        self._owes_on_demand = False
        self._stopping = False
        self._engine: InfillEngine | None = None
        self._progress = Progress(state=EngineState.LOADING, percent=0, message="starting")
        self._requests = {finish.value: 0 for finish in Finish} | {"fault": 0}
        self._stages = StageRecord()
        self._thread = threading.Thread(target=self._run, name="dgemma-device", daemon=True)

    def start(self) -> None:
        """Starts the thread, which loads the model first."""
        self._thread.start()

    def submit(
        self, owner: int, context: Context, on_draft: OnDraft | None = None, *, recorder: Recorder | None = None
    ) -> Ticket:
        """Queues a request; its ticket's answer always comes.

        Args:
            owner: the connection it came from.
            context: the question.
            on_draft: told the drafts on the device thread, before the answer and not once the request is cancelled or
                superseded; must return at once.
            recorder: told what every step did, on the device thread.
        """
        arrival_s = self._clock()
        cancel = Cancel(deadline_s=arrival_s + context.deadline_ms / 1_000, clock=self._clock)
        ticket = Ticket(
            owner=owner,
            context=context,
            arrival_s=arrival_s,
            cancel=cancel,
            answer=Future(),
            on_draft=on_draft,
            recorder=recorder,
        )
        with self._condition:
            if self._progress.state is EngineState.FAILED:
                self._settle(ticket, EngineFault(self._progress.message))
            elif self._stopping:
                self._settle(ticket, self._unstarted(ticket, Finish.CANCELLED))
            elif context.speculative:
                self._speculate(ticket)
            else:
                self._supersede(ticket)
                self._condition.notify()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Takes a request back: it is not started, or stops at the next piece."""
        ticket.cancel.set()
        self._drop(ticket, Finish.CANCELLED)

    def expire(self, ticket: Ticket) -> None:
        """Answers a request that still waits with `DEADLINE`; one that runs watches its deadline itself."""
        self._drop(ticket, Finish.DEADLINE)

    def overdue(self, ticket: Ticket) -> None:
        """Answers a request that runs past its deadline with `DEADLINE`; what it still finds is thrown away.

        A piece cannot be interrupted, nor can the first look at a long document.
        """
        with self._condition:
            run = next((run for run in self._runs if run.ticket is ticket), None)
            if run is not None and not ticket.answer.done():
                ticket.cancel.set()
                run.is_overdue = True
                self._settle(ticket, self._unstarted(ticket, Finish.DEADLINE))

    def stop(self) -> None:
        """Answers what waits with `CANCELLED`, cancels what runs, and lets the thread end."""
        with self._condition:
            self._stopping = True
            for ticket in [*self._waiting.values(), *self._speculations.values()]:
                self._drop(ticket, Finish.CANCELLED)
            for run in self._runs:
                run.ticket.cancel.set()
            self._condition.notify()

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread's end, at most `timeout_s`; returns whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def progress(self) -> Progress:
        """How far loading has come."""
        return self._progress

    @property
    def state(self) -> EngineState:
        """What the thread is doing."""
        busy = bool(self._runs) and self._progress.state is EngineState.READY
        return EngineState.BUSY if busy else self._progress.state

    @property
    def engine(self) -> InfillEngine | None:
        """The loaded engine, for reading its attributes; None until it is loaded."""
        return self._engine

    def requests(self) -> dict[str, int]:
        """Returns the number of requests answered so far per `Finish` value, and `fault`."""
        with self._condition:
            return dict(self._requests)

    def stages(self) -> dict[str, StageTimes]:
        """Returns the latencies of the last requests that ran to their end."""
        with self._condition:
            return self._stages.times()

    def _run(self) -> None:
        try:
            engine = self._load(self._report)
        except Exception as error:
            self._fail(_load_message(error))
            return
        # What is loaded stays: looking for garbage in it would hold up a request for tens of milliseconds now and then.
        gc.freeze()
        self._engine = engine
        self._announce(Progress(state=EngineState.READY, percent=100))
        while (run := self._next(engine)) is not None:
            self._go_on(run)

    def _report(self, percent: int, message: str) -> None:
        self._announce(Progress(state=EngineState.LOADING, percent=percent, message=message))

    def _fail(self, message: str) -> None:
        _log.error("the model cannot be loaded: %s", message)
        with self._condition:
            self._progress = Progress(state=EngineState.FAILED, percent=0, message=message)
            for ticket in [*self._waiting.values(), *self._speculations.values()]:
                self._settle(ticket, EngineFault(message))
            self._waiting.clear()
            self._speculations.clear()
        self._on_progress(self._progress)

    def _announce(self, progress: Progress) -> None:
        self._progress = progress
        self._on_progress(progress)

    def _next(self, engine: InfillEngine) -> Run | None:
        """Waits for something to do; returns whose piece is next, or None when the worker stops.

        What was cancelled goes first: all it has to do is to end, and the next request of its document waits for that.
        Then what has just begun, then whose turn was longest ago.
        """
        with self._condition:
            while True:
                self._condition.wait_for(lambda: self._runs or self._waiting or self._speculations or self._stopping)
                if not self._stopping:
                    self._begin(engine)
                if self._runs:
                    break
                if self._stopping:
                    return None
            run = self._turn()
            self._runs.remove(run)
            self._runs.append(run)
            return run

    def _turn(self) -> Run:
        """Returns whose turn it is."""
        for run in self._runs:
            if run.ticket.cancel.cancelled:
                return run
        typing = [run for run in self._runs if not run.ticket.context.on_demand]
        on_demand = [run for run in self._runs if run.ticket.context.on_demand]
        if on_demand and (self._owes_on_demand or not typing):
            self._owes_on_demand = False
            return on_demand[0]
        return typing[0]

    def _begin(self, engine: InfillEngine) -> None:
        """Begins what may begin: one request of each connection and one on demand, or else one that is speculative."""
        begun: list[Run] = []
        for ticket in list(self._waiting.values()):
            if any(_excludes(run.ticket, ticket) for run in [*begun, *self._runs]):
                continue
            if run := self._begun(engine, ticket):
                begun.append(run)
        self._runs[:0] = begun
        while not self._runs and self._speculations:
            if run := self._begun(engine, next(iter(self._speculations.values()))):
                self._runs.append(run)

    def _begun(self, engine: InfillEngine, ticket: Ticket) -> Run | None:
        """Takes a request out of its queue; None for one that came too late."""
        if ticket.cancel.expired:
            self._drop(ticket, Finish.DEADLINE)
            return None
        del self._queue_of(ticket)[ticket.key]
        work = engine.filling(ticket.context, ticket.cancel, on_draft=ticket.tell, recorder=ticket.recorder)
        return Run(ticket=ticket, work=work, started_s=self._clock())

    def _go_on(self, run: Run) -> None:
        """Does one piece of a request, and answers it if that was the last."""
        outcome: Infill | EngineFault
        begun_s = self._clock()
        try:
            next(run.work)
        except StopIteration as end:
            outcome = end.value
        except EngineError as error:
            outcome = EngineFault(_one_line(error))
        except Exception as error:
            # The message of an arbitrary exception may quote the user's text; its place cannot.
            place = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a request failed with %s\n%s", type(error).__name__, place)
            outcome = EngineFault(f"the engine failed on this request ({type(error).__name__}); its log has the place")
        else:
            run.worked_s += self._clock() - begun_s
            return
        ticket, ended_s = run.ticket, self._clock()
        if isinstance(outcome, Infill):
            others_s = begun_s - run.started_s - run.worked_s
            queue_ms, total_ms = (1_000 * (instant - ticket.arrival_s) for instant in (run.started_s, ended_s))
            times_ms = {"queue": queue_ms, "others": 1_000 * max(0.0, others_s), "total": total_ms}
            outcome = replace(outcome, timings_ms=outcome.timings_ms | times_ms)
        with self._condition:
            self._runs.remove(run)
            self._owes_on_demand |= not ticket.context.on_demand
            if run.is_overdue:
                return
            if isinstance(outcome, Infill) and outcome.finish is not Finish.CANCELLED:
                self._learn(ticket, outcome)
            self._settle(ticket, outcome)

    def _learn(self, ticket: Ticket, outcome: Infill) -> None:
        # Nobody waited for what was speculative, and what is on demand lets others be served meanwhile: how long they
        # took says nothing of how long people wait for ghost text.
        if not (ticket.context.speculative or ticket.context.on_demand):
            self._stages.add(outcome.timings_ms)

    def _supersede(self, ticket: Ticket) -> None:
        # In the place of the one that waits, so that who types fast is neither pushed back nor pushes others back.
        waiting, self._waiting[ticket.key] = self._waiting.get(ticket.key), ticket
        if waiting is not None:
            self._settle(waiting, self._unstarted(waiting, Finish.CANCELLED))
        if (speculation := self._speculations.get(ticket.key)) is not None:
            self._drop(speculation, Finish.CANCELLED)
        for running in (run.ticket for run in self._runs):
            if running.key == ticket.key or running.context.speculative:
                running.cancel.set()

    def _speculate(self, ticket: Ticket) -> None:
        """Queues a speculative request, unless somebody else is being served or the document's next one is known."""
        real = [*self._waiting.values(), *(run.ticket for run in self._runs)]
        real = [other for other in real if not other.context.speculative and other.live]
        if any(other.owner != ticket.owner or other.key == ticket.key for other in real):
            self._settle(ticket, self._unstarted(ticket, Finish.CANCELLED))
            return
        if (older := self._speculations.get(ticket.key)) is not None:
            self._drop(older, Finish.CANCELLED)
        self._speculations[ticket.key] = ticket
        for running in (run.ticket for run in self._runs):
            if running.key == ticket.key and running.context.speculative:
                running.cancel.set()
        self._condition.notify()

    def _queue_of(self, ticket: Ticket) -> dict[tuple[int, str], Ticket]:
        return self._speculations if ticket.context.speculative else self._waiting

    def _drop(self, ticket: Ticket, finish: Finish) -> None:
        with self._condition:
            if self._queue_of(ticket).get(ticket.key) is ticket:
                del self._queue_of(ticket)[ticket.key]
                self._settle(ticket, self._unstarted(ticket, finish))

    def _unstarted(self, ticket: Ticket, finish: Finish) -> Infill:
        waited_ms = 1_000 * (self._clock() - ticket.arrival_s)
        return Infill(text="", finish=finish, timings_ms={"queue": waited_ms, "total": waited_ms})

    def _settle(self, ticket: Ticket, outcome: Infill | EngineFault) -> None:
        with self._condition:
            self._requests["fault" if isinstance(outcome, EngineFault) else outcome.finish.value] += 1
        try:
            if isinstance(outcome, EngineFault):
                ticket.answer.set_exception(outcome)
            else:
                ticket.answer.set_result(outcome)
        except InvalidStateError:
            pass  # The client took the request back; nobody waits for this answer.


def _excludes(running: Ticket, waiting: Ticket) -> bool:
    """Whether a request cannot begin before another has ended."""
    if running.key == waiting.key:
        return True
    on_demand = waiting.context.on_demand
    return running.context.on_demand is on_demand and (on_demand or running.owner == waiting.owner)


def _load_message(error: Exception) -> str:
    if isinstance(error, EngineError):
        return _one_line(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; run: pip install 'dgemma-lsp[engine]'"
    return f"the model cannot be loaded ({type(error).__name__}: {_one_line(error)})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
