"""Request -> Infill: gathers text from other files, builds the message, asks the engine. The one place that does so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.protocol.messages import Infill, OnDraft

from dgemma_lsp.context.builder import ContextLimits, build_context
from dgemma_lsp.context.collector import CollectedContext
from dgemma_lsp.request import Request, as_if_accepted


class InfillClient:
    """Asks the engine for ghost text, fills and previews.

    Args:
        connection: the connection to the engine.
        collect: returns text from other files for a request.
        clock: seconds that never go backwards.

    Attributes:
        connection: the connection to the engine.
    """

    def __init__(
        self,
        connection: EngineConnection,
        collect: Callable[[Request], Awaitable[CollectedContext]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self.connection = connection
        self._collect = collect
        self._clock = clock

    async def ask(
        self, request: Request, limits: ContextLimits, on_draft: OnDraft | None = None
    ) -> Infill | ConnectionStatus:
        """Returns the engine's answer, or what stands in the way. Cancelling the caller cancels the work.

        Args:
            request: the question.
            limits: how much text to send, how much to ask for.
            on_draft: called with the drafts, oldest first, some left out for a slow reader; None asks for none.

        Returns:
            The answer; its timings have the stage `context`, milliseconds for gathering and building.
        """
        asked, since_s = as_if_accepted(request), self._clock()
        found = await self._collect(asked)
        context = build_context(asked, limits, snippets=found.snippets, edits=found.edits)
        context_ms = (self._clock() - since_s) * 1_000
        answer = await self.connection.infill(context, on_draft)
        if not isinstance(answer, Infill):
            return answer
        return replace(answer, timings_ms=answer.timings_ms | {"context": context_ms})
