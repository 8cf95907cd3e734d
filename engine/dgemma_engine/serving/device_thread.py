"""The one thread that touches the device: loads the model, then schedules, runs and answers requests step by step.

Turns `Context` into a future `Infill`, with drafts on the way to it. Every job is answered exactly once, and a fault of
one request ends that request only. Which request is next is the scheduler's decision. Knows nothing of sockets.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace

from dgemma_engine.errors import EngineFault
from dgemma_engine.protocol.messages import Context, Finish, Infill, OnDraft
from dgemma_engine.protocol.status_messages import EngineState, Progress, StageTimes
from dgemma_engine.scheduling.timing import Cancel, LatencyStats
from dgemma_engine.serving.failures import device_message, fault, is_device_lost, load_message
from dgemma_engine.serving.infill_engine import InfillEngine, Load, about
from dgemma_engine.serving.model_release import give_back, rest_message
from dgemma_engine.serving.scheduler import Job, Scheduler
from dgemma_engine.tracing.recorder import Recorder

_log = logging.getLogger(__name__)


class DeviceThread:
    """Owner of the device. Every public method may be called from any other thread and returns at once.

    Args:
        load: makes the engine, on this thread.
        clock: seconds that never go backwards.
        on_progress: called on this thread with the progress of loading, and once when loading has ended.
        on_device_lost: called on this thread, once, when the device fails every later call (`is_device_lost`); nothing
            runs afterwards.
        unload_s: seconds without a request after which a model on an accelerator is unloaded; None never unloads it.
    """

    def __init__(
        self,
        load: Load,
        *,
        clock: Callable[[], float],
        on_progress: Callable[[Progress], None],
        on_device_lost: Callable[[], None],
        unload_s: float | None = None,
    ) -> None:
        self._load, self._clock, self._unload_s = load, clock, unload_s
        self._on_progress, self._on_device_lost = on_progress, on_device_lost
        self._condition = threading.Condition()
        self._scheduler = Scheduler()
        self._stopping = self._is_lost = False
        self._engine: InfillEngine | None = None
        self._steps_before = 0
        self._progress = Progress(state=EngineState.LOADING, percent=0, message="starting")
        self._requests = {finish.value: 0 for finish in Finish} | {"fault": 0}
        self._latency = LatencyStats()
        self._step_began_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="dgemma-device", daemon=True)

    def start(self) -> None:
        """Starts the thread, which loads the model first."""
        self._thread.start()

    def submit(
        self, owner: int, context: Context, on_draft: OnDraft | None = None, *, recorder: Recorder | None = None
    ) -> Job:
        """Queues a request; its job's answer always comes.

        Args:
            owner: the connection that sent the request.
            context: the request.
            on_draft: receives the drafts on the device thread, before the answer and not once the request is cancelled
                or superseded; must return at once.
            recorder: receives what every step did, on the device thread.
        """
        arrival_s = self._clock()
        deadline_s = arrival_s + context.deadline_ms / 1_000
        job = Job(
            owner=owner,
            context=context,
            arrival_s=arrival_s,
            deadline_s=deadline_s,
            cancel=Cancel(deadline_s=deadline_s, clock=self._clock),
            answer=Future(),
            on_draft=on_draft,
            recorder=recorder,
        )
        with self._condition:
            if self._progress.state is EngineState.FAILED:
                self._answer(job, EngineFault(self._progress.message))
            elif self._stopping:
                self._answer(job, Finish.CANCELLED)
            else:
                cancelled = self._scheduler.add(job)
                for one in cancelled:
                    one.cancel.set()
                    if one.started_s is None:
                        self._answer(one, Finish.CANCELLED)
                self._condition.notify()
        return job

    def withdraw(self, job: Job) -> None:
        """Cancels a request: it is not started, or stops at the next step."""
        job.cancel.set()
        self._remove(job, Finish.CANCELLED)

    def expire(self, job: Job) -> None:
        """Answers a request that still waits with `DEADLINE`; one that runs watches its deadline itself."""
        self._remove(job, Finish.DEADLINE)

    def overdue(self, job: Job) -> None:
        """Answers a request that runs past its deadline with `DEADLINE`: a step, or a parse, cannot be interrupted."""
        with self._condition:
            if job in self._scheduler.running and not job.answer.done():
                job.cancel.set()
                job.is_overdue = True
                self._answer(job, Finish.DEADLINE)

    def stop(self) -> None:
        """Answers waiting requests with `CANCELLED`, cancels running ones, and lets the thread end."""
        with self._condition:
            self._stopping = True
            for job in self._scheduler.drain():
                self._answer(job, Finish.CANCELLED)
            for job in self._scheduler.running:
                job.cancel.set()
            self._condition.notify()

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread's end, at most `timeout_s`; returns whether the thread has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def progress(self) -> Progress:
        """Progress of loading."""
        return self._progress

    @property
    def state(self) -> EngineState:
        """What the thread is doing."""
        busy = bool(self._scheduler.running) and self._progress.state is EngineState.READY
        return EngineState.BUSY if busy else self._progress.state

    @property
    def is_lost(self) -> bool:
        """Whether the device fails every call: only a new process can use it again."""
        return self._is_lost

    @property
    def step_s(self) -> float:
        """Seconds since the step under way began; 0 between two."""
        began_s = self._step_began_s
        return 0.0 if began_s is None else self._clock() - began_s

    @property
    def engine(self) -> InfillEngine | None:
        """The loaded engine, for reading its attributes; None until it is loaded, and while it is unloaded."""
        return self._engine

    @property
    def denoising_steps(self) -> int:
        """Denoising steps since the start; never falls."""
        engine = self._engine
        return self._steps_before + (0 if engine is None else engine.denoising_steps)

    def requests(self) -> dict[str, int]:
        """Returns the number of requests answered so far per `Finish` value, and `fault`."""
        with self._condition:
            return dict(self._requests)

    def stages(self) -> dict[str, StageTimes]:
        """Returns the latencies of the last requests that ran to their end."""
        with self._condition:
            return self._latency.times()

    def _run(self) -> None:
        """Loads the model and makes step after step; after `unload_s` without work unloads it until there is some."""
        while (engine := self._load_model()) is not None:
            while (job := self._schedule()) is not None:
                began_s, outcome = self._clock(), None
                self._step_began_s = began_s
                if job.work is None:
                    job.work = engine.filling(job.context, job.cancel, on_draft=job.send_draft, recorder=job.recorder)
                try:
                    next(job.work)
                except StopIteration as end:
                    outcome = end.value
                except Exception as error:
                    if is_device_lost(error):
                        self._lose_device(job, error)
                        return
                    outcome = fault(error)
                self._step_began_s = None
                job.worked_s += self._clock() - began_s
                if outcome is not None:
                    self._finish(job, outcome)
                    del outcome  # The traceback of an error holds the model.
            del engine
            if self._stopping or not self._rest():
                return
            self._report(0, "loading the model again")

    def _load_model(self) -> InfillEngine | None:
        """Returns the engine; None if it could not be loaded."""
        try:
            self._engine = engine = self._load(self._report)
        except Exception as error:
            message = load_message(error)
            with self._condition:
                self._progress = Progress(state=EngineState.FAILED, percent=0, message=message)
                for job in self._scheduler.drain():
                    self._answer(job, EngineFault(message))
            self._on_progress(self._progress)
            return None
        # Loaded objects stay: a garbage collection over them would delay a request by tens of milliseconds.
        gc.freeze()
        _log.info("%s", about(engine))
        self._announce(Progress(state=EngineState.READY, percent=100))
        return engine

    def _rest(self) -> bool:
        """Unloads the model and waits for a request; returns False when the thread stops."""
        assert self._unload_s is not None
        self._steps_before, self._engine = self.denoising_steps, None
        give_back()
        self._announce(Progress(state=EngineState.READY, percent=100, message=rest_message(self._unload_s)))
        with self._condition:
            while not self._stopping and not self._scheduler.has_waiting:
                self._condition.wait()
            return not self._stopping

    def _report(self, percent: int, message: str) -> None:
        self._announce(Progress(state=EngineState.LOADING, percent=percent, message=message))

    def _lose_device(self, job: Job, error: Exception) -> None:
        """Answers all jobs, and requests the end of the process."""
        message = device_message(error)
        _log.error("%s", message)
        with self._condition:
            self._stopping = self._is_lost = True
            self._scheduler.finish(job)
            for one in (job, *self._scheduler.running, *self._scheduler.drain()):
                if not one.answer.done():
                    self._answer(one, EngineFault(message))
        self._on_device_lost()

    def _announce(self, progress: Progress) -> None:
        self._progress = progress
        self._on_progress(progress)

    def _schedule(self) -> Job | None:
        """Waits for work; returns the job whose step is next, None to stop, or to unload after a wait without work."""
        with self._condition:
            wait_s, engine, has_waited = self._unload_s, self._engine, False
            if wait_s is not None and (engine is None or not engine.device_memory_bytes):
                wait_s = None
            while True:
                job, late = self._scheduler.schedule(self._clock())
                for one in late:
                    self._answer(one, Finish.DEADLINE)
                if job is not None or self._stopping or has_waited:
                    return job
                has_waited = not self._condition.wait(wait_s)

    def _finish(self, job: Job, outcome: Infill | EngineFault) -> None:
        """Answers a job whose last step was made, and counts its latency."""
        if isinstance(outcome, Infill):
            outcome = replace(outcome, timings_ms=outcome.timings_ms | job.times_ms(self._clock()))
        with self._condition:
            self._scheduler.finish(job)
            if job.is_overdue:
                return
            # No user waits for a speculative request, and one on demand lets others go first.
            is_waited_for = not (job.context.speculative or job.context.on_demand)
            if is_waited_for and isinstance(outcome, Infill) and outcome.finish is not Finish.CANCELLED:
                self._latency.add(outcome.timings_ms)
            self._answer(job, outcome)

    def _remove(self, job: Job, finish: Finish) -> None:
        with self._condition:
            if self._scheduler.remove(job):
                self._answer(job, finish)

    def _answer(self, job: Job, outcome: Infill | EngineFault | Finish) -> None:
        """Sets the answer, without a text for a `Finish`, and counts it. The condition's lock must be held."""
        if isinstance(outcome, Finish):
            outcome = job.unstarted(outcome, self._clock())
        self._requests["fault" if isinstance(outcome, EngineFault) else outcome.finish.value] += 1
        # The future is cancelled where the client withdrew the request.
        with suppress(InvalidStateError):
            if isinstance(outcome, EngineFault):
                job.answer.set_exception(outcome)
            else:
                job.answer.set_result(outcome)
