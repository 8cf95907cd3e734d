"""A stream of events -> drafts, each passed on once, and the last event. Detects a proxy that holds drafts back."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

from dgemma_engine.protocol.messages import Draft, OnDraft
from dgemma_engine.remote.http_channel import Broken, Reply
from dgemma_engine.remote.reply_reading import read_message

# Drafts that the engine made so long before its answer, and that came with it, were held back on the way.
_HELD_BACK_MS = 300.0
_TOGETHER_SHARE = 0.2


class DraftReader:
    """The drafts of one question, over all tries.

    Args:
        on_draft: receives the drafts, never one twice and none after `end`; None wants none.
        clock: seconds that never go backwards.

    Attributes:
        is_held_back: whether drafts came only with the answer; None where the answer came too soon to tell.
    """

    def __init__(self, on_draft: OnDraft | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_draft = on_draft
        self._clock = clock
        self._last_step = -1
        self.is_wanted = on_draft is not None
        self.is_held_back: bool | None = None

    def end(self) -> None:
        """Passes nothing on any more: the question is answered, or nobody waits for it."""
        self._on_draft = None

    async def last_of(self, events: AsyncGenerator[Reply]) -> Reply:
        """Passes the drafts of a stream on, and returns what comes last.

        Raises:
            Broken: the stream ends before its answer.
        """
        first: tuple[float, float] | None = None
        async with aclosing(events):
            async for reply in events:
                body = cast("dict[str, Any]", reply.body) if isinstance(reply.body, dict) else {}
                if "draft" not in body:
                    self._judge(first, _elapsed_ms(body))
                    return _status_of(reply, body)
                self._pass_on(read_message(body["draft"], Draft.from_wire))
                first = first or (self._clock(), _elapsed_ms(body))
        raise Broken("no answer")

    def _pass_on(self, draft: Draft) -> None:
        if draft.step <= self._last_step:
            return
        self._last_step = draft.step
        if self._on_draft is not None:
            self._on_draft(draft)

    def _judge(self, first: tuple[float, float] | None, answered_ms: float) -> None:
        if first is None:
            return
        came_s, made_ms = first
        ahead_ms = answered_ms - made_ms
        if ahead_ms >= _HELD_BACK_MS:
            self.is_held_back = (self._clock() - came_s) * 1_000 < _TOGETHER_SHARE * ahead_ms


def _elapsed_ms(body: dict[str, Any]) -> float:
    elapsed_ms = body.get("elapsed_ms")
    return float(elapsed_ms) if isinstance(elapsed_ms, int | float) else 0.0


def _status_of(reply: Reply, body: dict[str, Any]) -> Reply:
    """Returns the last event with the status that it would have had without a stream."""
    error = body.get("error")
    if reply.status != 200 or not isinstance(error, dict):
        return reply
    code = cast("dict[str, Any]", error).get("code")
    return Reply(status=code if isinstance(code, int) else 500, retry_after_s=0, body=reply.body)
