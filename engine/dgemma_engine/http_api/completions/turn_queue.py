"""Requests that arrive at once -> a bounded number at the engine: which is next, and which are dropped.

The engine answers the requests of one connection one after another, so a request waits here for its turn. Where its
client named a deadline, the wait is subtracted from it, and a request whose deadline passes here is never begun. Where
none was named, the wait does not count: the server's own deadline bounds the work.

- Of one document only the newest request counts: it takes the place of the one that waits, which is answered with
  nothing, and goes to the engine at once where that works on an older one, which it supersedes there.
- Callers take turns; of one caller the request that came first is next.
- A speculative request never waits: while anything else is under way, it is answered with nothing.

Knows no HTTP. Not thread-safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.protocol.messages import Context, Finish, Infill, OnDraft

NOT_DUE = float("inf")
"""Seconds until an answer is due whose client named no deadline."""
Ask = Callable[[Context, OnDraft | None], Awaitable[Infill | ConnectionStatus]]


@dataclass(slots=True, eq=False, kw_only=True)
class _Turn:
    """One request that is not answered yet.

    Attributes:
        document: key of its document.
        caller: who asks.
        may_run: True once it is this request's turn, False once a newer one of its document has come.
    """

    document: str
    caller: str
    may_run: asyncio.Future[bool]


class TurnQueue:
    """The requests that wait, and those at the engine.

    Args:
        ask: asks the engine; cancelling it cancels the work there.
        num_at_once: documents that the engine works on at the same time: 1 lets a long request delay all others, many
            leave each request a small part of the engine within its deadline.
        max_wait_s: seconds that a request may wait for its turn, never past its deadline: 0 answers every request that
            would have to wait with nothing, large keeps a client waiting that might ask again.
        clock: seconds that never go backwards.
    """

    def __init__(
        self, ask: Ask, *, num_at_once: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._num_at_once = num_at_once
        self._max_wait_s = max_wait_s
        # By document, in order of arrival.
        self._waiting: dict[str, _Turn] = {}
        self._running: list[_Turn] = []
        # Of each caller the number of its last turn, since nothing was under way.
        self._last_turn: dict[str, int] = {}
        self._num_turns = 0

    async def answer(
        self, context: Context, caller: str, due_s: float, on_draft: OnDraft | None = None
    ) -> Infill | ConnectionStatus:
        """Answers a request when its turn has come. Cancelling the caller cancels the work.

        Args:
            context: the request.
            caller: who asks.
            due_s: seconds from now until the client needs the answer; `NOT_DUE` where it named no deadline.
            on_draft: receives the drafts; None asks for none.

        Returns:
            The engine's answer, or the connection's state. An empty answer, `CANCELLED`, for a request that is dropped,
            and `DEADLINE` for one that waited too long. The wait for the turn is in `queue` and `total` of the
            answer's times.
        """
        if context.speculative:
            return _nothing(Finish.CANCELLED) if self._running else await self._ask(context, on_draft)
        since_s = self._clock()
        turn = self._add(context.document, caller)
        try:
            if turn.may_run.done():
                return await self._ask(context, on_draft)
            try:
                async with asyncio.timeout(min(self._max_wait_s, due_s)):
                    may_run = await turn.may_run
            except TimeoutError:
                return _waited(_nothing(Finish.DEADLINE), self._clock() - since_s)
            waited_s = self._clock() - since_s
            if not may_run:
                return _waited(_nothing(Finish.CANCELLED), waited_s)
            if waited_s >= due_s:
                return _waited(_nothing(Finish.DEADLINE), waited_s)
            rest = replace(context, deadline_ms=min(context.deadline_ms, (due_s - waited_s) * 1_000))
            return _waited(await self._ask(rest, on_draft), waited_s)
        finally:
            self._remove(turn)

    def _add(self, document: str, caller: str) -> _Turn:
        turn = _Turn(document=document, caller=caller, may_run=asyncio.get_running_loop().create_future())
        if any(one.document == document for one in self._running):
            self._run(turn)
            return turn
        if (older := self._waiting.get(document)) is not None and not older.may_run.done():
            older.may_run.set_result(False)
        self._waiting[document] = turn
        self._run_next()
        return turn

    def _remove(self, turn: _Turn) -> None:
        if turn in self._running:
            self._running.remove(turn)
        elif self._waiting.get(turn.document) is turn:
            del self._waiting[turn.document]
        self._run_next()

    def _run_next(self) -> None:
        while self._waiting and len({one.document for one in self._running}) < self._num_at_once:
            turn = min(self._waiting.values(), key=lambda one: self._last_turn.get(one.caller, 0))
            del self._waiting[turn.document]
            self._run(turn)
        if not self._running:
            self._last_turn.clear()

    def _run(self, turn: _Turn) -> None:
        self._running.append(turn)
        self._num_turns += 1
        self._last_turn[turn.caller] = self._num_turns
        if not turn.may_run.done():
            turn.may_run.set_result(True)


def _nothing(finish: Finish) -> Infill:
    return Infill(text="", finish=finish)


def _waited(answer: Infill | ConnectionStatus, waited_s: float) -> Infill | ConnectionStatus:
    """Returns an answer whose times hold the wait for the turn too."""
    if isinstance(answer, ConnectionStatus):
        return answer
    longer = {stage: answer.timings_ms.get(stage, 0.0) + waited_s * 1_000 for stage in ("queue", "total")}
    return replace(answer, timings_ms={**answer.timings_ms, **longer})
