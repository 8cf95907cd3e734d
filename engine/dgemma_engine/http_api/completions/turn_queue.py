"""Requests that arrive at once -> a bounded number at the engine: whose turn is next, and what is not worth one.

The engine answers the requests of one connection one after another, and a request's deadline begins when the engine
receives it. So a request waits here, where waiting costs nothing of its deadline.

- Of one document only the newest request counts: it takes the place of the one that waits, which is answered with
  nothing, and goes to the engine at once where that works on an older one, which it supersedes there.
- Callers take turns; of one caller the request that came first is next.
- A speculative request never waits: while anything else is under way, it is answered with nothing.

Knows no HTTP. Not thread-safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.protocol.messages import Context, Finish, Infill, OnDraft

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
        max_wait_s: seconds that a request may wait for its turn: 0 answers every request that would have to wait with
            nothing, large keeps a client waiting that might ask again.
    """

    def __init__(self, ask: Ask, *, num_at_once: int, max_wait_s: float) -> None:
        self._ask = ask
        self._num_at_once = num_at_once
        self._max_wait_s = max_wait_s
        # By document, in order of arrival.
        self._waiting: dict[str, _Turn] = {}
        self._running: list[_Turn] = []
        # Of each caller the number of its last turn, since nothing was under way.
        self._last_turn: dict[str, int] = {}
        self._num_turns = 0

    async def answer(self, context: Context, caller: str, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        """Answers a request when its turn has come. Cancelling the caller cancels the work.

        Args:
            context: the request.
            caller: who asks.
            on_draft: receives the drafts; None asks for none.

        Returns:
            The engine's answer, or what stands in the way. Nothing, as `CANCELLED`, for a request that is not worth a
            turn, and as `DEADLINE` for one that waited too long.
        """
        if context.speculative:
            return _nothing(Finish.CANCELLED) if self._running else await self._ask(context, on_draft)
        turn = self._add(context.document, caller)
        try:
            try:
                async with asyncio.timeout(self._max_wait_s):
                    may_run = await turn.may_run
            except TimeoutError:
                return _nothing(Finish.DEADLINE)
            return await self._ask(context, on_draft) if may_run else _nothing(Finish.CANCELLED)
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
