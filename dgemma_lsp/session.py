"""One editor's session: composes documents, settings, privacy, engine, completions, fills and statistics.

Knows no protocol types: `ClientNotifier` notifies the editor, and the server turns messages into calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.infill_source import Connect
from dgemma_engine.model_store.choice import ModelChoice
from dgemma_engine.protocol.messages import OnDraft

from dgemma_lsp.completion.admission import HEAD_CHARS, OFF, CompletionGate
from dgemma_lsp.completion.in_flight import LatestOnly
from dgemma_lsp.completion.preview import Preview
from dgemma_lsp.completion.provider import CompletionProvider
from dgemma_lsp.context.collector import ContextCollector
from dgemma_lsp.documents.notebooks import Notebooks
from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import HAS_CHANGED, Document, Documents, Edit
from dgemma_lsp.documents.uri import name_files
from dgemma_lsp.engine_client.connector import engine_host, first_request
from dgemma_lsp.engine_client.infill_client import ContextLimits, InfillClient
from dgemma_lsp.engine_client.status import ClientNotifier, StatusBoard
from dgemma_lsp.fill.service import FillService
from dgemma_lsp.metrics.recorder import StatsRecorder
from dgemma_lsp.metrics.stats import Source
from dgemma_lsp.privacy.policy import Privacy
from dgemma_lsp.request import Completion, Request
from dgemma_lsp.settings.reader import SettingsOf, read_settings
from dgemma_lsp.settings.settings import Settings


class Session:
    """The state of the server for one editor.

    Args:
        connector: returns the function that connects to the engine of given settings.
        choose: returns which model runs with given settings.
        clock: seconds that never go backwards.
        notifier: notifies the editor.
        recorder: counts what is shown and accepted; switched on and off by the settings.
        home: the user's home folder.
    """

    def __init__(
        self,
        connector: Callable[[Settings], Connect],
        choose: Callable[[Settings], ModelChoice],
        *,
        clock: Callable[[], float],
        notifier: ClientNotifier,
        recorder: StatsRecorder,
        home: Path,
    ) -> None:
        self._connector, self._choose = connector, choose
        self._clock = clock
        self._notifier = notifier
        self._answering = LatestOnly()
        self._watched = LatestOnly()
        self._warned: set[str] = set()
        self._asking: asyncio.Task[None] | None = None
        self._initial = Settings()
        self._limits = ContextLimits()
        self.settings = Settings()
        self.documents = Documents()
        self.notebooks = Notebooks(self._readable_cell)
        self.recorder = recorder
        self.privacy = Privacy((), home=home, clock=clock, report=lambda message: self.warn([message]))
        self._gate = CompletionGate(self.notebooks, self.privacy, clock=clock)
        self.board = StatusBoard(publish=notifier.publish, alarm=notifier.error, ask_engine=self._ask_about_engine)
        self.board.deadline_ms = self.settings.deadline_ms
        self._connection = EngineConnection(
            connector(self.settings),
            on_status=self.board.connection_changed,
            on_fault=self.board.request_failed,
            on_recovered=self.board.request_answered,
            clock=clock,
        )
        self._collector = ContextCollector(
            self._files, self._connection.definitions, clock=clock, why_not_read=self.privacy.why_not_read
        )
        self._infills = InfillClient(self._connection, self._collector.collect, clock=clock)
        self._completions = CompletionProvider(
            self._infills,
            clock=clock,
            stats=recorder,
            is_current=self._is_current,
            on_activity=self.board.activity_changed,
            on_infill=self.board.answered,
        )
        self.fills = FillService(
            self.documents.get,
            self._infills,
            cells=self.cells_around,
            why_not=self._gate.why_not,
            on_activity=self.board.activity_changed,
        )

    def initialize(self, raw: object) -> list[str]:
        """Reads the settings that the editor starts with; they hold wherever later ones leave a key out.

        Only these may say where text goes and which files are no longer private: later ones may be a workspace's.

        Args:
            raw: decoded JSON.

        Returns:
            Their problems, to be shown once the editor accepts messages.
        """
        self._initial, problems = read_settings(raw, Settings())
        self._apply(self._initial)
        return list(problems)

    def configure(self, raw: object) -> None:
        """Applies new settings; warns of each problem once.

        Args:
            raw: decoded JSON; keys that it leaves out go back to what the editor started with.
        """
        settings, problems = read_settings(raw, self._initial, self.settings, of=SettingsOf.WORKSPACE)
        self.warn(problems)
        self._apply(settings)
        self.board.show_current()

    def _apply(self, settings: Settings) -> None:
        old, self.settings, self._gate.settings = self.settings, settings, settings
        self._limits = ContextLimits(max_middle_tokens=settings.max_tokens, seed=settings.seed)
        self.board.off = "" if settings.enabled else OFF
        self.board.model, self.board.deadline_ms = self._choose(settings), settings.deadline_ms
        self._infills.is_elsewhere = bool(settings.engine_url)
        self.board.host, self.board.unasked = engine_host(settings), first_request(settings)
        self.recorder.switch(on=settings.stats)
        if settings.private_files != old.private_files:
            self.privacy.configure(settings.private_files)
            self._collector.forget()
        if settings != old:
            self._completions.forget()
        if settings.engine_choice != old.engine_choice:
            self._connection.reconfigure(self._connector(settings))

    def model_fetched(self) -> None:
        """Connects anew: the files of the chosen model are there now."""
        self._completions.forget()
        self.board.model = self._choose(self.settings)
        self._connection.reconfigure(self._connector(self.settings))
        self.board.show_current()

    def adapters_changed(self) -> None:
        """Drops answers of a model with another adapter, or with none; the next answer names the one in use."""
        self._completions.forget()

    def warn(self, problems: Iterable[str]) -> None:
        """Shows the user each problem that was not shown before."""
        for problem in problems:
            if problem not in self._warned:
                self._warned.add(problem)
                self._notifier.warning(problem)

    def change(self, uri: str, version: int | None, edits: Iterable[Edit], encoding: PositionEncoding) -> bool:
        """Applies edits as `Documents.change` does, and follows suggestions through them."""
        old, edits = self.documents.get(uri), list(edits)
        cursor = self.documents.change(uri, version, edits, encoding)
        if cursor is not None and old is not None and (new := self.documents.get(uri)) is not None:
            self.recorder.change(uri, old.text, new.text)
            # Typing over a selection may leave less text too, and is no deletion.
            inserts = any(edit.span is not None and edit.text for edit in edits)
            self._completions.changed(uri, new.text, cursor, deleted=len(new.text) < len(old.text) and not inserts)
        return cursor is not None

    def lose(self, uris: Iterable[str]) -> None:
        """Offers nothing in documents that are out of step with the editor; tells the user once what to do.

        Args:
            uris: documents of which an edit could not be applied; those that are not open are left out.
        """
        lost = [uri for uri in uris if self.documents.lose(uri)]
        for uri in lost:
            self._end_work(uri)
        if lost:
            them = "it" if len(lost) == 1 else "them"
            problem = f"dgemma: an edit of {name_files(lost)} could not be applied"
            self.warn([f"{problem}; close {them} and open {them} again to go on"])

    def close_document(self, uri: str) -> None:
        """Drops a document, its answers and the work on it."""
        self.documents.close(uri)
        self._end_work(uri)

    def _end_work(self, uri: str) -> None:
        self.fills.closed(uri)
        self._watched.end(uri)
        self._collector.closed(uri)
        self.recorder.close(uri)
        self._completions.closed(uri)

    def cells_around(self, uri: str) -> tuple[str, str]:
        """Returns the text of a notebook's cells before and after one of them; nothing for any other document."""
        limits = ContextLimits()
        return self.notebooks.around(uri, most_before=limits.prefix_chars, most_after=limits.suffix_chars)

    def folders_changed(self) -> None:
        """Drops what was collected under the paths of other workspace folders."""
        self._collector.forget()

    def ignore_files_changed(self) -> None:
        """Drops answers and context: they may come from a file that is private now."""
        self._gate.forget()
        self._collector.forget()
        self._completions.forget()

    def accept(self, number: int) -> None:
        """Records that the editor has inserted the suggestion of that number."""
        self.recorder.accept(number, lambda uri: found.text if (found := self.documents.get(uri)) else None)

    async def answer(self, request: Request) -> tuple[Completion, ...]:
        """Returns what to show, best first; empty if private, nothing fits, no engine answers, or the text changed.

        An older request of the same document and channel is cancelled. The engine's work outlives its request for
        200 ms, in case the next one can use it.
        """
        since_s, settings = self._clock(), self.settings
        why = self._gate.why_not_complete(self.documents.get(request.uri) or request)
        if settings.enabled and (why or self.board.is_refusing):
            self.board.show_refusal(why, request.uri)
        if why:
            total_ms = (self._clock() - since_s) * 1_000
            self.recorder.answered(Source.NOT_ASKED, shown=False, total_ms=total_ms, timings_ms={})
            return ()
        with self._answering.newest(request.key):
            try:
                return await self._completions.answer(
                    request, self._limits, speculate=settings.speculation, since_s=since_s
                )
            except asyncio.CancelledError:
                self.recorder.count(superseded=1)
                raise

    async def preview(self, request: Request, on_draft: OnDraft) -> Preview:
        """Asks the engine and passes its drafts on; the answer is neither counted nor cached.

        An older preview of the same document is cancelled; nothing is offered where the document changed since.

        Args:
            request: the question, of the channel `PREVIEW`.
            on_draft: called with the drafts.
        """
        if why := self._gate.why_not(self.documents.get(request.uri) or request):
            return Preview(message=why)
        with self._watched.newest(request.uri):
            preview = Preview.of(request, await self._infills.ask(request, self._limits, on_draft))
        if self._is_current(request):
            return preview
        return replace(preview, completions=(), message=HAS_CHANGED)

    async def close(self) -> None:
        """Closes the connection to the engine, which keeps running."""
        await self._completions.close()
        self._collector.close()
        self.recorder.end()
        await self._connection.close()

    def _is_current(self, request: Request) -> bool:
        document = self.documents.get(request.uri)
        return document is not None and request.is_about(document.version, document.text)

    def _readable_cell(self, uri: str) -> Document | None:
        """Returns a cell of a notebook that may be read as context; None where it is not open or holds secrets."""
        cell = self.documents.get(uri)
        return None if cell is None or self.privacy.is_secret(cell.text[:HEAD_CHARS]) else cell

    def _files(self) -> tuple[Document, ...]:
        """Returns the open documents that are no cells of a notebook."""
        return tuple(one for one in self.documents.all() if one.uri not in self.notebooks.holders)

    def _ask_about_engine(self) -> None:
        # The loop itself keeps only weak references to tasks.
        self._asking = asyncio.create_task(self._read_engine_status())

    async def _read_engine_status(self) -> None:
        self.board.engine = await self._connection.about()
