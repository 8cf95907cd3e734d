"""A request with drafts -> server-sent events: the newest draft whenever the client reads, and at last the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import event
from dgemma_engine.protocol.messages import Draft, OnDraft

_Answer = TypeVar("_Answer")


async def draft_events(
    ask: Callable[[OnDraft], Awaitable[_Answer]],
    *,
    to_draft: Callable[[Draft], object],
    to_answer: Callable[[_Answer], object],
) -> AsyncGenerator[bytes]:
    """Yields an event for each draft that the client reads in time, and one for the answer.

    Where the engine is lost after the first draft, the last event is `{"error": {...}}`.

    Args:
        ask: asks with a function that receives the drafts; cancelled when the client leaves.
        to_draft: returns the event of a draft.
        to_answer: returns the event of the answer.

    Raises:
        Refusal: nothing was answered, and no draft was sent.
    """
    newest: list[Draft] = []
    changed = asyncio.Event()

    def keep(draft: Draft) -> None:
        # A slow reader gets the newest only.
        newest[:] = [draft]
        changed.set()

    answer = asyncio.ensure_future(ask(keep))
    answer.add_done_callback(lambda _: changed.set())
    sent = False
    try:
        while newest or not answer.done():
            await changed.wait()
            changed.clear()
            if newest:
                sent = True
                yield event(to_draft(newest.pop()))
        try:
            yield event(to_answer(await answer))
        except Refusal as refusal:
            if not sent:
                raise
            yield event({"error": {"message": refusal.message, "type": refusal.kind, "code": refusal.status}})
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
