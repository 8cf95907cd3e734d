"""One editor's session: its documents, settings and engine, and the way from a `Request` to `Completion`s.

Knows no protocol types: `Teller` says things to the editor, and the server turns messages into calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from dgemma_engine.messages import Infill

from dgemma_lsp.completion import Completion, build_completions
from dgemma_lsp.context import ContextLimits, build_context
from dgemma_lsp.documents import Documents
from dgemma_lsp.engine_link import Connect, EngineLink, LinkState, LinkStatus
from dgemma_lsp.inflight import Inflight
from dgemma_lsp.request import Request
from dgemma_lsp.settings import Settings, read_settings
from dgemma_lsp.status import ServerStatus, StatusBoard, StatusKind

_log = logging.getLogger(__name__)


class Teller(Protocol):
    """Says things to the editor."""

    def publish(self, status: ServerStatus) -> None:
        """Shows a state in the status bar."""
        ...

    def error(self, message: str) -> None:
        """Shows the user an error."""
        ...

    def warning(self, message: str) -> None:
        """Shows the user a warning."""
        ...


class Session:
    """What the server holds for one editor.

    Args:
        connector: makes the way to the engine that given settings name.
        clock: seconds that never go backwards.
        teller: says things to the editor.
    """

    def __init__(self, connector: Callable[[Settings], Connect], *, clock: Callable[[], float], teller: Teller) -> None:
        self._connector = connector
        self._clock = clock
        self._teller = teller
        self._board = StatusBoard(publish=teller.publish, alarm=teller.error)
        self._inflight = Inflight()
        self._told: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._initial = Settings()
        self.documents = Documents()
        self.settings = Settings()
        self._link = self._new_link()

    def initialize(self, raw: object) -> list[str]:
        """Takes the settings that the editor starts with; they hold wherever later ones say nothing.

        Args:
            raw: decoded JSON.

        Returns:
            What is wrong with them, to be told once the editor listens.
        """
        self._initial, problems = read_settings(raw, Settings())
        self.settings = self._initial
        self._link = self._new_link()
        return list(problems)

    def configure(self, raw: object) -> None:
        """Takes the settings that hold from now on; each problem is told once.

        Args:
            raw: decoded JSON; keys that it leaves out go back to what the editor started with.
        """
        old = self.settings
        self.settings, problems = read_settings(raw, self._initial)
        self.warn(problems)
        if _engine_choice(self.settings) != _engine_choice(old):
            self._retire(self._link)
            self._link = self._new_link()
        self.show_resting()

    def warn(self, problems: list[str] | tuple[str, ...]) -> None:
        """Tells each problem that was not told before."""
        for problem in problems:
            if problem not in self._told:
                self._told.add(problem)
                self._teller.warning(problem)

    async def answer(self, request: Request) -> tuple[Completion, ...]:
        """Returns what to show, best first; empty: nothing to say, no engine yet, or the document has changed since.

        An older request of the same document and channel is cancelled. Cancelling the caller stops the engine's work.
        """
        if not self.settings.enabled:
            return ()
        limits = ContextLimits(max_middle_tokens=self.settings.max_tokens, seed=self.settings.seed)
        with self._inflight.newest(request.key):
            if self._link.status.state is LinkState.READY:
                self._board.show(ServerStatus(kind=StatusKind.BUSY, percent=100))
            try:
                answer = await self._link.infill(build_context(request, limits))
            except asyncio.CancelledError:
                self._rest_after(request)
                raise
        if not isinstance(answer, Infill):
            return ()
        self._board.clear()
        self._rest_after(request)
        _log.debug("%s after %d steps, %s", answer.finish, answer.steps, answer.timings_ms)
        document = self.documents.get(request.uri)
        if document is None or document.version != request.version:
            return ()
        return build_completions(request, answer)

    def show_resting(self) -> None:
        """Shows the state between requests."""
        if not self.settings.enabled:
            self._board.show(ServerStatus(kind=StatusKind.INACTIVE, message="switched off by dgemma.enabled"))
        elif self._link.status == LinkStatus(state=LinkState.DISCONNECTED):
            self._board.show(ServerStatus(kind=StatusKind.INACTIVE, message="the first request starts the engine"))
        else:
            self._board.show(ServerStatus.of(self._link.status))

    async def close(self) -> None:
        """Ends the connection to the engine, which stays."""
        await self._link.close()

    def _rest_after(self, request: Request) -> None:
        if self._inflight.is_idle_without(request.key):
            self.show_resting()

    def _new_link(self) -> EngineLink:
        return EngineLink(self._connector(self.settings), on_status=self._link_changed, clock=self._clock)

    def _link_changed(self, status: LinkStatus) -> None:
        self._board.show(ServerStatus.of(status))

    def _retire(self, link: EngineLink) -> None:
        # The loop itself keeps only weak references to tasks.
        task = asyncio.create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _engine_choice(settings: Settings) -> tuple[Any, ...]:
    return settings.engine_model, settings.engine_device, settings.engine_autostart
