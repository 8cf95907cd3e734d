"""One request on its way through the worker: whose it is, its permission to go on, and where its answer goes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from dgemma_engine.protocol.messages import Context, Draft, Infill, OnDraft
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.tracing.recorder import Recorder


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


@dataclass(slots=True, eq=False, kw_only=True)
class Run:
    """A request that was begun.

    Attributes:
        ticket: the request.
        work: what is left of it.
        started_s: instant of its beginning on the worker's clock.
        worked_s: how long its pieces took so far.
        is_overdue: whether it was answered before its end.
    """

    ticket: Ticket
    work: Pieces[Infill]
    started_s: float
    worked_s: float = 0.0
    is_overdue: bool = False
