"""The requests of the engine, and which runs next: supersession, fairness between connections, deadlines.

- Of one connection's document only the newest request counts: it cancels the one that runs and takes the place of the
  one that waits.
- Each connection has one request running; connections take turns step by step, and a new request goes first.
- One request on demand may run besides: it gets one step each time another request has ended, and all steps while
  there is no other.
- A speculative request runs only while there is no other request, and is cancelled as soon as one comes.

Pure: jobs and instants are arguments, jobs to be cancelled or answered are results.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from dgemma_engine.protocol.messages import Context, Draft, Finish, Infill, OnDraft
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tracing.recorder import Recorder


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One request under way: its sender, its cancellation, and the answer to come.

    Attributes:
        owner: the connection that sent the request.
        context: the request.
        arrival_s: instant of arrival, on the device thread's clock.
        deadline_s: instant at which the answer is due, on the same clock.
        cancel: its cancellation and deadline.
        answer: the answer to come; `EngineFault` when there is none.
        on_draft: receives drafts until the answer; None asks for none.
        recorder: receives what every step did; None records no trace.
        work: the steps that are left; None before the first one.
        started_s: instant at which the scheduler started the job; None while the job waits.
        worked_s: duration of the steps made so far.
        is_overdue: whether the job was answered before its work ended.
    """

    owner: int
    context: Context
    arrival_s: float
    deadline_s: float
    cancel: Cancel
    answer: Future[Infill]
    on_draft: OnDraft | None = None
    recorder: Recorder | None = None
    work: Pieces[Infill] | None = None
    started_s: float | None = None
    worked_s: float = 0.0
    is_overdue: bool = False

    @property
    def key(self) -> tuple[int, str]:
        """Connection and document; of the jobs of one key only the newest is worth answering."""
        return (self.owner, self.context.document)

    @property
    def live(self) -> bool:
        """Whether the answer is still to come and still wanted."""
        return not (self.cancel.cancelled or self.answer.done())

    def times_ms(self, ended_s: float) -> dict[str, float]:
        """Returns how long the job waited, how long others were served meanwhile, and both with its own work."""
        assert self.started_s is not None
        times_s = {
            "queue": self.started_s - self.arrival_s,
            "others": max(0.0, ended_s - self.started_s - self.worked_s),
            "total": ended_s - self.arrival_s,
        }
        return {stage: 1_000 * seconds for stage, seconds in times_s.items()}

    def unstarted(self, finish: Finish, now_s: float) -> Infill:
        """Returns the answer of a job that made no step."""
        waited_ms = 1_000 * (now_s - self.arrival_s)
        return Infill(text="", finish=finish, timings_ms={"queue": waited_ms, "total": waited_ms})

    def send_draft(self, draft: Draft) -> None:
        """Passes a draft on, unless the job was cancelled or answered."""
        if self.on_draft is not None and self.live:
            self.on_draft(draft)


class Scheduler:
    """The jobs that wait and the jobs that run. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], Job] = {}
        self._speculative: dict[tuple[int, str], Job] = {}
        # The job whose turn was longest ago comes first.
        self._running: list[Job] = []
        self._owes_on_demand = False

    @property
    def running(self) -> Sequence[Job]:
        """Jobs that were started and have not finished."""
        return self._running

    @property
    def has_waiting(self) -> bool:
        """Whether a job waits to be started."""
        return bool(self._waiting or self._speculative)

    def add(self, job: Job) -> list[Job]:
        """Queues a job.

        Returns:
            Jobs to cancel because of it: those that it supersedes, speculative ones that run, and the job itself if it
            is speculative and there is no room for it.
        """
        if job.context.speculative:
            return self._add_speculative(job)
        replaced = [self._waiting.get(job.key), self._speculative.pop(job.key, None)]
        # In the place of the job that waits, so that fast typing neither loses its turn nor delays other connections.
        self._waiting[job.key] = job
        running = [one for one in self._running if one.key == job.key or one.context.speculative]
        return [one for one in replaced if one is not None] + running

    def _add_speculative(self, job: Job) -> list[Job]:
        """Refuses the job while another connection is served, or a request of its document that is not speculative."""
        for other in (*self._waiting.values(), *self._running):
            is_real = other.live and not other.context.speculative
            if is_real and (other.owner != job.owner or other.key == job.key):
                return [job]
        older = self._speculative.pop(job.key, None)
        self._speculative[job.key] = job
        running = [one for one in self._running if one.key == job.key and one.context.speculative]
        return running if older is None else [older, *running]

    def remove(self, job: Job) -> bool:
        """Takes a job out of its queue; returns whether it was waiting there."""
        queue = self._speculative if job.context.speculative else self._waiting
        if queue.get(job.key) is not job:
            return False
        del queue[job.key]
        return True

    def drain(self) -> list[Job]:
        """Takes all jobs that wait out of their queues and returns them."""
        jobs = [*self._waiting.values(), *self._speculative.values()]
        self._waiting.clear()
        self._speculative.clear()
        return jobs

    def schedule(self, now_s: float) -> tuple[Job | None, list[Job]]:
        """Starts the jobs that may start, chooses the one whose step is next, and puts it last.

        Args:
            now_s: the present instant.

        Returns:
            The job whose step is next, None if there is nothing to do; and the jobs that came too late to be started.
        """
        late: list[Job] = []
        started: list[Job] = []
        for job in list(self._waiting.values()):
            if not any(_excludes(other, job) for other in (*started, *self._running)):
                del self._waiting[job.key]
                (started if now_s < job.deadline_s else late).append(job)
        self._running[:0] = started
        while not self._running and self._speculative:
            job = self._speculative.pop(next(iter(self._speculative)))
            (self._running if now_s < job.deadline_s else late).append(job)
        for job in self._running:
            if job.started_s is None:
                job.started_s = now_s
        if not self._running:
            return None, late
        # A cancelled job goes first: its next step ends it, and the next request of its document waits for that.
        typing = [job for job in self._running if not job.context.on_demand]
        on_demand = [job for job in self._running if job.context.on_demand]
        chosen = next((job for job in self._running if job.cancel.cancelled), None)
        if chosen is None and on_demand and (self._owes_on_demand or not typing):
            self._owes_on_demand = False
            chosen = on_demand[0]
        chosen = chosen or typing[0]
        self._running.remove(chosen)
        self._running.append(chosen)
        return chosen, late

    def finish(self, job: Job) -> None:
        """Takes out a job whose last step was made."""
        self._running.remove(job)
        self._owes_on_demand |= not job.context.on_demand


def _excludes(running: Job, waiting: Job) -> bool:
    """Returns whether a job cannot start before another one has ended."""
    if running.key == waiting.key:
        return True
    on_demand = waiting.context.on_demand
    return running.context.on_demand is on_demand and (on_demand or running.owner == waiting.owner)
