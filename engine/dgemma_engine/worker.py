"""The one thread that touches the device: loads the model, then answers one request at a time.

Turns `Context` into a future `Infill`, with drafts on the way to it. Of one document's requests only the newest is
worth answering: it cancels the running one and takes the place of the waiting one. A speculative request runs only
while nobody waits for anything, and makes way at the next step for whatever comes. One on demand lets the others be
served between its steps, one after each. Knows nothing of sockets.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from typing import Protocol

from dgemma_engine.cancel import Cancel
from dgemma_engine.errors import EngineError, EngineFault
from dgemma_engine.messages import Context, Draft, EngineState, Finish, Infill, Progress, StageTimes
from dgemma_engine.recorder import Recorder
from dgemma_engine.stages import StageRecord

_log = logging.getLogger(__name__)


OnDraft = Callable[[Draft], None]
"""Told the drafts of one request, on the device thread."""


class InfillEngine(Protocol):
    """A loaded model. Lives on the worker's thread; its attributes may be read from any."""

    model_name: str
    model_path: str
    device: str

    @property
    def denoising_steps(self) -> int:
        """Denoising steps since the start; never falls."""
        ...

    @property
    def device_memory_bytes(self) -> int:
        """Memory held on the accelerator; 0 on a CPU."""
        ...

    def infill(
        self, context: Context, cancel: Cancel, *, on_draft: OnDraft = ..., recorder: Recorder | None = ...
    ) -> Infill:
        """Answers one request, asking `cancel` before every denoising step.

        Args:
            context: the question; a draft is worth making only if it has `drafts`.
            cancel: its permission to go on.
            on_draft: told what the text looks like between steps; returns at once. Does nothing by default.
            recorder: told what every step did. None by default.
        """
        ...


Load = Callable[[Callable[[int, str], None]], InfillEngine]
"""Loads the model on the calling thread; its argument reports percent and a line for a person."""


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """One request on its way.

    Attributes:
        owner: the connection it came from.
        context: the question.
        arrival_s: instant of arrival on the worker's clock.
        cancel: its permission to go on.
        answer: the answer to come; `EngineFault` when there is none.
        on_draft: told the drafts until the answer; None wants none.
        recorder: told what every step did; None wants no trace.
    """

    owner: int
    context: Context
    arrival_s: float
    cancel: Cancel
    answer: Future[Infill]
    on_draft: OnDraft | None
    recorder: Recorder | None

    @property
    def key(self) -> tuple[int, str]:
        """Requests of one key supersede each other."""
        return (self.owner, self.context.document)

    @property
    def live(self) -> bool:
        """Whether the answer is still to come and still wanted."""
        return not (self.cancel.cancelled or self.answer.done())

    def tell(self, draft: Draft) -> None:
        """Hands on a draft, while there is someone to whom it is news."""
        if self.on_draft is not None and self.live:
            self.on_draft(draft)


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
        # One on demand and the one served between its steps are both running; the last is at work.
        self._running: list[Ticket] = []
        self._overdue: set[Ticket] = set()
        self._last_owner: int | None = None
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
        deadline_s = arrival_s + context.deadline_ms / 1_000
        cancel = (
            Cancel(deadline_s=deadline_s, clock=self._clock, give_way=self._give_way)
            if context.on_demand
            else Cancel(deadline_s=deadline_s, clock=self._clock)
        )
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
        """Takes a request back: it is not started, or stops at the next denoising step."""
        ticket.cancel.set()
        self._drop(ticket, Finish.CANCELLED)

    def expire(self, ticket: Ticket) -> None:
        """Answers a request that still waits with `DEADLINE`; one that runs watches its deadline itself."""
        self._drop(ticket, Finish.DEADLINE)

    def overdue(self, ticket: Ticket) -> None:
        """Answers a request that runs past its deadline with `DEADLINE`; what it still finds is thrown away.

        A step cannot be interrupted, nor can the first look at a long document.
        """
        with self._condition:
            if ticket in self._running and not ticket.answer.done():
                ticket.cancel.set()
                self._overdue.add(ticket)
                self._settle(ticket, self._unstarted(ticket, Finish.DEADLINE))

    def stop(self) -> None:
        """Answers what waits with `CANCELLED`, cancels what runs, and lets the thread end."""
        with self._condition:
            self._stopping = True
            for ticket in [*self._waiting.values(), *self._speculations.values()]:
                self._drop(ticket, Finish.CANCELLED)
            for ticket in self._running:
                ticket.cancel.set()
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
        busy = bool(self._running) and self._progress.state is EngineState.READY
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
        self._engine = engine
        self._announce(Progress(state=EngineState.READY, percent=100))
        while (ticket := self._next()) is not None:
            self._answer(engine, ticket)

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

    def _next(self) -> Ticket | None:
        """Waits for a ticket to run; None when the worker stops."""
        with self._condition:
            while True:
                self._condition.wait_for(lambda: self._waiting or self._speculations or self._stopping)
                if self._stopping:
                    return None
                ticket = self._choose(list(self._waiting.values()) or list(self._speculations.values()))
                if self._begin(ticket):
                    return ticket

    def _give_way(self) -> None:
        """Answers one request of those that cannot wait, if there is any; called between steps of one that can."""
        with self._condition:
            hasty = [ticket for ticket in self._waiting.values() if not ticket.context.on_demand]
            ticket = self._choose(hasty) if hasty and not self._stopping else None
            begun = ticket is not None and self._begin(ticket)
        if begun and ticket is not None and self._engine is not None:
            self._answer(self._engine, ticket)

    def _choose(self, waiting: list[Ticket]) -> Ticket:
        """Returns the ticket that waits longest, of another connection than the last one's where there is one."""
        return next((ticket for ticket in waiting if ticket.owner != self._last_owner), waiting[0])

    def _begin(self, ticket: Ticket) -> bool:
        """Takes a ticket out of its queue; returns whether there is time left to answer it."""
        if ticket.cancel.expired:
            self._drop(ticket, Finish.DEADLINE)
            return False
        del self._queue_of(ticket)[ticket.key]
        self._running.append(ticket)
        if not ticket.context.speculative:
            self._last_owner = ticket.owner
        return True

    def _answer(self, engine: InfillEngine, ticket: Ticket) -> None:
        started_s = self._clock()
        try:
            outcome: Infill | EngineFault = engine.infill(
                ticket.context, ticket.cancel, on_draft=ticket.tell, recorder=ticket.recorder
            )
        except EngineError as error:
            outcome = EngineFault(_one_line(error))
        except Exception as error:
            # The message of an arbitrary exception may quote the user's text; its place cannot.
            place = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a request failed with %s\n%s", type(error).__name__, place)
            outcome = EngineFault(f"the engine failed on this request ({type(error).__name__}); its log has the place")
        ended_s = self._clock()
        if isinstance(outcome, Infill):
            queue_ms, total_ms = (1_000 * (instant - ticket.arrival_s) for instant in (started_s, ended_s))
            outcome = replace(outcome, timings_ms=outcome.timings_ms | {"queue": queue_ms, "total": total_ms})
        with self._condition:
            self._running.remove(ticket)
            if ticket in self._overdue:
                self._overdue.remove(ticket)
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
        for running in self._running:
            if running.key == ticket.key or running.context.speculative:
                running.cancel.set()

    def _speculate(self, ticket: Ticket) -> None:
        """Queues a speculative request, unless somebody else is being served or the document's next one is known."""
        real = [*self._waiting.values(), *self._running]
        real = [other for other in real if not other.context.speculative and other.live]
        if any(other.owner != ticket.owner or other.key == ticket.key for other in real):
            self._settle(ticket, self._unstarted(ticket, Finish.CANCELLED))
            return
        if (older := self._speculations.get(ticket.key)) is not None:
            self._drop(older, Finish.CANCELLED)
        self._speculations[ticket.key] = ticket
        for running in self._running:
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


def _load_message(error: Exception) -> str:
    if isinstance(error, EngineError):
        return _one_line(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; run: pip install 'dgemma-lsp[engine]'"
    return f"the model cannot be loaded ({type(error).__name__}: {_one_line(error)})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
