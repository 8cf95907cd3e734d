"""One request on its way through the engine process: its sender, its permission to go on, and the answer to come."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from dgemma_engine.protocol.messages import Context, Draft, Infill, OnDraft
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.tracing.recorder import Recorder


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One request.

    Attributes:
        owner: the connection that sent the request.
        context: the request.
        arrival_s: instant of arrival, on the device thread's clock.
        deadline_s: instant at which the answer is due, on the same clock.
        cancel: its permission to go on.
        answer: the answer to come; `EngineFault` when there is none.
        on_draft: receives drafts until the answer; None wants none.
        recorder: receives what every step did; None wants no trace.
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

    def send_draft(self, draft: Draft) -> None:
        """Passes a draft on, unless the job was cancelled or answered."""
        if self.on_draft is not None and self.live:
            self.on_draft(draft)
