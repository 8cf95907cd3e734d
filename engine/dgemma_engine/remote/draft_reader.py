"""A stream of events -> drafts, each passed on once, the last event, and how long the first draft came before it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

from dgemma_engine.protocol.messages import Draft, OnDraft
from dgemma_engine.remote.buffering_detector import DraftLead
from dgemma_engine.remote.http_channel import Broken, Reply
from dgemma_engine.remote.reply_reading import read_elapsed_ms, read_message


class DraftReader:
    """The drafts of one question, over all tries.

    Args:
        on_draft: receives the drafts, never one twice and none after `end`; None asks for none.
        clock: seconds that never go backwards.

    Attributes:
        lead: of the first draft of the try that was answered; None without one.
    """

    def __init__(self, on_draft: OnDraft | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_draft = on_draft
        self._clock = clock
        self._last_step = -1
        self.is_wanted = on_draft is not None
        self.lead: DraftLead | None = None

    def end(self) -> None:
        """Passes nothing on any more: the question is answered, or no caller waits for it."""
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
                    if first is not None:
                        came_ms, made_ms = (self._clock() - first[0]) * 1_000, read_elapsed_ms(body) - first[1]
                        self.lead = DraftLead(made_ms=made_ms, came_ms=came_ms)
                    return _status_of(reply, body)
                self._pass_on(read_message(body["draft"], Draft.from_wire))
                first = first or (self._clock(), read_elapsed_ms(body))
        raise Broken("no answer")

    def _pass_on(self, draft: Draft) -> None:
        if draft.step <= self._last_step:
            return
        self._last_step = draft.step
        if self._on_draft is not None:
            self._on_draft(draft)


def _status_of(reply: Reply, body: dict[str, Any]) -> Reply:
    """Returns the last event with the status that it would have had without a stream."""
    error = body.get("error")
    if reply.status != 200 or not isinstance(error, dict):
        return reply
    code = cast("dict[str, Any]", error).get("code")
    return Reply(status=code if isinstance(code, int) else 500, retry_after_s=0, body=reply.body)
