"""One editor's session: its documents, settings and engine, and the way from a `Request` to `Completion`s.

Knows no protocol types: `Teller` says things to the editor, and the server turns messages into calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Finish, Infill, OnDraft, Status

from dgemma_lsp.completion.latest_only import Inflight
from dgemma_lsp.completion.preview import Preview, watch
from dgemma_lsp.completion.provider import Sources
from dgemma_lsp.context.builder import ContextLimits
from dgemma_lsp.context.collector import Gatherer
from dgemma_lsp.documents.notebooks import Notebooks
from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import Document, Documents, Edit
from dgemma_lsp.engine_client.connection import Connect, EngineLink, LinkState, LinkStatus
from dgemma_lsp.engine_client.slow_detector import Slowness
from dgemma_lsp.engine_client.status import ServerStatus, StatusBoard, StatusKind
from dgemma_lsp.fill.service import Fills
from dgemma_lsp.metrics.events import Source
from dgemma_lsp.metrics.recorder import StatsRecorder
from dgemma_lsp.metrics.session_counters import Tally
from dgemma_lsp.postprocess.pipeline import Completion
from dgemma_lsp.privacy.policy import Privacy
from dgemma_lsp.request import Request
from dgemma_lsp.settings.language_ids import canonical_id
from dgemma_lsp.settings.settings import SECTION, Settings, read_settings

# More than any rule about first lines looks at.
_HEAD_CHARS = 8_192
_MOST_NAMES = 3
_OFF = "switched off by dgemma.enabled"


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
        recorder: counts what is shown and accepted; switched on and off by the settings.
        home: the user's home folder.
    """

    def __init__(
        self,
        connector: Callable[[Settings], Connect],
        *,
        clock: Callable[[], float],
        teller: Teller,
        recorder: StatsRecorder,
        home: Path,
    ) -> None:
        self._connector = connector
        self._clock = clock
        self._teller = teller
        self._home = home
        self._board = StatusBoard(publish=teller.publish, alarm=teller.error)
        self._inflight = Inflight()
        self._watched = Inflight()
        self._told: set[str] = set()
        self._aside: set[asyncio.Task[None]] = set()
        self._says_why_not = False
        self._num_active = 0
        self._slowness = Slowness()
        self._engine: Status | None = None
        self._initial = Settings()
        self.documents = Documents()
        self.notebooks = Notebooks(self._readable_cell)
        self.recorder = recorder
        self.settings = Settings()
        self.privacy = self._new_privacy()
        self.tally = Tally(report=recorder.report)
        self._link = self._new_link()
        self._gatherer = Gatherer(self._files, self._definitions, clock=clock, may_read=self._may_read)
        self._sources = Sources(
            lambda: self._link,
            self._gatherer.gather,
            clock=clock,
            tally=self.tally,
            is_current=self._is_current,
            on_activity=self._activity_changed,
            on_infill=self._infill_came,
        )
        self.fills = Fills(
            self.documents.get,
            lambda: self._link,
            self._gatherer.gather,
            cells=self.cells_around,
            settings=lambda: self.settings,
            why_not=self._why_not_fill,
            on_activity=self._activity_changed,
        )

    def initialize(self, raw: object) -> list[str]:
        """Takes the settings that the editor starts with; they hold wherever later ones say nothing.

        Args:
            raw: decoded JSON.

        Returns:
            What is wrong with them, to be told once the editor listens.
        """
        self._initial, problems = read_settings(raw, Settings())
        self.settings = self._initial
        self.privacy = self._new_privacy()
        self.recorder.switch(on=self.settings.stats)
        self._link = self._new_link()
        return list(problems)

    def configure(self, raw: object) -> None:
        """Takes the settings that hold from now on; each problem is told once.

        Args:
            raw: decoded JSON; keys that it leaves out go back to what the editor started with.
        """
        old = self.settings
        self.settings, problems = read_settings(raw, self._initial, old)
        self.warn(problems)
        self.recorder.switch(on=self.settings.stats)
        if self.settings.private_files != old.private_files:
            self.privacy = self._new_privacy()
            self._gatherer.forget()
        if self.settings != old:
            self._sources.forget()
        if _engine_choice(self.settings) != _engine_choice(old):
            self._do_aside(self._link.close())
            self._link = self._new_link()
        self.show_resting()

    def warn(self, problems: list[str] | tuple[str, ...]) -> None:
        """Tells each problem that was not told before."""
        for problem in problems:
            if problem not in self._told:
                self._told.add(problem)
                self._teller.warning(problem)

    def change(self, uri: str, version: int | None, edits: Iterable[Edit], encoding: PositionEncoding) -> bool:
        """Applies edits as `Documents.change` does, and follows suggestions through them."""
        old, edits = self.documents.get(uri), list(edits)
        cursor = self.documents.change(uri, version, edits, encoding)
        if cursor is not None and old is not None and (new := self.documents.get(uri)) is not None:
            self.recorder.change(uri, old.text, new.text)
            # Typing over a selection may leave less text too, and is no deletion.
            inserts = any(edit.span is not None and edit.text for edit in edits)
            self._sources.changed(uri, new.text, cursor, deleted=len(new.text) < len(old.text) and not inserts)
        return cursor is not None

    def lose(self, uris: Iterable[str]) -> None:
        """Offers nothing in documents whose text is not known any more; tells the user once what to do.

        Args:
            uris: documents of which an edit could not be applied; those that are not open are passed over.
        """
        lost = [uri for uri in uris if self.documents.lose(uri)]
        for uri in lost:
            self._end_work(uri)
        if lost:
            names = ", ".join(unquote(uri.rpartition("/")[2]) for uri in lost[:_MOST_NAMES])
            more = f" and {len(lost) - _MOST_NAMES} more" if len(lost) > _MOST_NAMES else ""
            them = "it" if len(lost) == 1 else "them"
            self.warn(
                [f"dgemma: an edit of {names}{more} could not be applied; close {them} and open {them} again to go on"]
            )

    def close_document(self, uri: str) -> None:
        """Forgets a text, what was said of it, and what is being written into it."""
        self.documents.close(uri)
        self._end_work(uri)

    def _end_work(self, uri: str) -> None:
        self.fills.closed(uri)
        self._watched.end(uri)
        self._gatherer.closed(uri)
        self.recorder.close(uri)
        self._sources.closed(uri)

    def cells_around(self, uri: str) -> tuple[str, str]:
        """Returns what the model sees before and after a notebook's cell; nothing for any other document."""
        limits = ContextLimits()
        return self.notebooks.around(uri, most_before=limits.prefix_chars, most_after=limits.suffix_chars)

    def folders_changed(self) -> None:
        """Takes note that the workspace has other folders: files are found under other paths."""
        self._gatherer.forget()

    def ignore_files_changed(self) -> None:
        """Takes note that other files may be private now: what was said and is being said may come from one of them."""
        self.privacy.forget()
        self._gatherer.forget()
        self._sources.forget()

    def accept(self, number: int) -> None:
        """Takes note that the editor has inserted the suggestion of that number."""
        self.recorder.accept(number, lambda uri: found.text if (found := self.documents.get(uri)) else None)

    async def answer(self, request: Request) -> tuple[Completion, ...]:
        """Returns what to show, best first; empty: private, nothing to say, no engine, or the document changed since.

        An older request of the same document and channel is cancelled. The engine's work outlives its request for a
        moment, in case that the next one can use it.
        """
        since_s = self._clock()
        if not self.settings.enabled:
            return self._not_asked(since_s)
        why = self._why_not_here(request)
        self._show_why_not(why, request.uri)
        if why:
            return self._not_asked(since_s)
        limits = self._limits()
        with self._inflight.newest(request.key):
            try:
                return await self._sources.answer(request, limits, speculate=self.settings.speculation, since_s=since_s)
            except asyncio.CancelledError:
                self.tally.superseded += 1
                raise

    async def preview(self, request: Request, on_draft: OnDraft) -> Preview:
        """Asks the engine anew and tells what the canvas says on the way; nothing of it is counted or remembered.

        An older preview of the same document is cancelled; nothing is offered where the document changed since.

        Args:
            request: the question, of the channel `PREVIEW`.
            on_draft: told the drafts.
        """
        if not self.settings.enabled:
            return Preview(message=_OFF)
        if why := self._why_private(request.uri, request.language, self._head_of(request)):
            return Preview(message=why)
        with self._watched.newest(request.uri):
            preview = await watch(request, self._link, self._gatherer.gather, self._limits(), on_draft=on_draft)
        if self._is_current(request):
            return preview
        return replace(preview, completions=(), message="the document has changed meanwhile; ask again")

    def show_resting(self) -> None:
        """Shows the state between requests."""
        if not self.settings.enabled:
            self._board.show(ServerStatus.inactive(_OFF))
        elif self._slowness.reason and self._link.status.state is LinkState.READY:
            self._board.show(ServerStatus.slow(self._slowness.reason))
        else:
            self._board.show(ServerStatus.of(self._link.status))

    async def close(self) -> None:
        """Ends the connection to the engine, which stays."""
        await self._sources.close()
        self._gatherer.close()
        self.recorder.end()
        await self._link.close()

    def _not_asked(self, since_s: float) -> tuple[Completion, ...]:
        self.tally.answered(Source.NOT_ASKED, has_item=False, total_ms=(self._clock() - since_s) * 1_000, stages_ms={})
        return ()

    def _why_not_fill(self, document: Document) -> str | None:
        return self._why_private(document.uri, document.language, document.text) if self.settings.enabled else _OFF

    def _limits(self) -> ContextLimits:
        return ContextLimits(max_middle_tokens=self.settings.max_tokens, seed=self.settings.seed)

    def _show_why_not(self, why: str | None, uri: str) -> None:
        """Shows why nothing is offered in a document, or that something is again."""
        if why:
            self._board.show(ServerStatus.inactive(why, uri=uri))
        elif self._says_why_not:
            self.show_resting()
        self._says_why_not = bool(why)

    def _is_current(self, request: Request) -> bool:
        document = self.documents.get(request.uri)
        # A client may count its versions wrongly; what an answer is put into is the text.
        if document is None or document.version != request.version:
            return False
        text, skipped, size = document.text, request.skipped, len(request.text)
        if len(text) != skipped + size + request.beyond:
            return False
        return text == request.text if size == len(text) else text.startswith(request.text, skipped)

    def _readable_cell(self, uri: str) -> Document | None:
        """Returns a cell that may be read as context; that of a private notebook is not asked for."""
        cell = self.documents.get(uri)
        return None if cell is None or self.privacy.is_secret(cell.text[:_HEAD_CHARS]) else cell

    def _files(self) -> tuple[Document, ...]:
        """Returns the open documents that stand for themselves."""
        return tuple(one for one in self.documents.all() if self.notebooks.holder(one.uri) is None)

    def _why_not_here(self, request: Request) -> str | None:
        """Returns why nothing is offered in one document, or None where something is."""
        if canonical_id(request.language) in map(canonical_id, self.settings.paused_languages):
            return f"{request.language} is paused by {SECTION}.pausedLanguages"
        return self._why_private(request.uri, request.language, self._head_of(request))

    def _head_of(self, request: Request) -> str:
        document = self.documents.get(request.uri) if request.skipped else None
        return request.text if document is None else document.text

    def _why_private(self, uri: str, language: str, text: str) -> str | None:
        # A cell is as private as the file that it is kept in.
        return self.privacy.why_not_complete(self.notebooks.holder(uri) or uri, language, text[:_HEAD_CHARS])

    def _activity_changed(self, active: bool) -> None:
        self._num_active += 1 if active else -1
        self._show_activity()

    def _show_activity(self) -> None:
        if not self._num_active:
            self.show_resting()
        elif self._link.status.state is LinkState.READY:
            self._board.show(ServerStatus(kind=StatusKind.BUSY, percent=100))

    def _infill_came(self, infill: Infill) -> None:
        self._board.clear()
        if infill.finish is Finish.DEADLINE and self._engine is None:
            self._do_aside(self._ask_engine())
        self._slowness.learn(infill, deadline_ms=self.settings.deadline_ms, engine=self._engine)

    async def _ask_engine(self) -> None:
        self._engine = await self._link.about()

    def _new_privacy(self) -> Privacy:
        return Privacy(
            self.settings.private_files,
            home=self._home,
            clock=self._clock,
            report=lambda message: self.warn((message,)),
        )

    async def _definitions(self, query: DefinitionsQuery) -> Definitions | None:
        return await self._link.definitions(query)

    def _may_read(self, path: Path, head: str) -> bool:
        return self.privacy.why_not_read(path, head=head) is None

    def _new_link(self) -> EngineLink:
        return EngineLink(self._connector(self.settings), on_status=self._link_changed, clock=self._clock)

    def _link_changed(self, status: LinkStatus) -> None:
        if status.state is not LinkState.READY:
            self._slowness, self._engine = Slowness(), None
            self._board.show(ServerStatus.of(status))
        else:
            self._show_activity()

    def _do_aside(self, work: Coroutine[Any, Any, None]) -> None:
        # The loop itself keeps only weak references to tasks.
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)


def _engine_choice(settings: Settings) -> tuple[Any, ...]:
    return settings.engine_model, settings.engine_device, settings.engine_autostart
