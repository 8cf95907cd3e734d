"""Identical requests under way -> one request to the engine, whose candidates are shared out.

Some editors send one request several times at once for as many suggestions. The engine answers the newest request of a
document only, so that all but one would get nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.protocol.messages import Context, Infill


@dataclass(slots=True, kw_only=True)
class _Work:
    """One request to the engine.

    Attributes:
        task: its answer.
        num_joined: requests that it has served so far.
        num_waiting: requests that still wait for it.
    """

    task: asyncio.Task[Infill | ConnectionStatus]
    num_joined: int = 0
    num_waiting: int = 0


@dataclass(slots=True)
class SharedWork:
    """The requests under way.

    Attributes:
        ask: asks the engine for a caller, with the seconds until the answer is due; cancelling it cancels the work.
    """

    ask: Callable[[Context, str, float], Awaitable[Infill | ConnectionStatus]]
    _works: dict[Context, _Work] = field(default_factory=dict[Context, _Work])

    async def answer(self, context: Context, caller: str, due_s: float) -> tuple[Infill | ConnectionStatus, int]:
        """Returns the answer, and how many identical requests came before this one; cancellable.

        The work is cancelled once the last of them is. Documents are a caller's own, so all of them have one caller.
        """
        work = self._works.get(context)
        if work is None:
            work = self._works[context] = _Work(task=asyncio.create_task(self._ask(context, caller, due_s)))
        place = work.num_joined
        work.num_joined += 1
        work.num_waiting += 1
        try:
            return await asyncio.shield(work.task), place
        finally:
            work.num_waiting -= 1
            if not work.num_waiting and not work.task.done():
                self._works.pop(context, None)
                work.task.cancel()

    async def _ask(self, context: Context, caller: str, due_s: float) -> Infill | ConnectionStatus:
        try:
            return await self.ask(context, caller, due_s)
        finally:
            if (work := self._works.get(context)) is not None and work.task is asyncio.current_task():
                del self._works[context]
