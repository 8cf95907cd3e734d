"""Request -> what the engine gets besides the document: definitions, similar chunks, recent edits.

A choice stays while the user types at one place, so that its text comes first in the prompt and is encoded once. It is
renewed after a move to another place, changed import lines, or a visit to another document. A renewal works in slices
of 4 ms and ends after 150 ms; a request waits for it at most 20 ms and otherwise uses the previous choice.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.protocol.messages import Snippet

from dgemma_lsp.context.chunks import around, words_of
from dgemma_lsp.context.import_definitions import DefinitionSearch, FindDefinitions, Importer
from dgemma_lsp.context.import_parser import MOST_CHARS as READ_CHARS
from dgemma_lsp.context.recent_activity import RecentDocument, RecentDocuments, RecentEdits
from dgemma_lsp.context.similar_snippets import ChunkSearch
from dgemma_lsp.context.workspace_files import MOST_CHARS, WhyNotRead, WorkspaceFiles
from dgemma_lsp.documents.store import Document
from dgemma_lsp.documents.uri import path_of
from dgemma_lsp.request import Request

_log = logging.getLogger(__name__)

_MOST_KEPT = 32
_NOWHERE = "/\0"
_IMPORT_CHARS = 6_000
_IMPORT_LINE = re.compile(r"^[ \t]*+(?:from|import|export|use|mod|#[ \t]*+include|.*require\()[^\n]*+", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorLimits:
    """How much is collected, and how long it may take.

    Attributes:
        budget_ms: longest renewal, which keeps what it has found by then; small misses definitions in large files.
        patience_ms: longest wait of a request for a renewal; 0 never waits, large delays ghost text.
        retry_s: time after which a renewal that could not ask the engine, or ran out of time, is repeated.
        moved_lines: a cursor that went further is at another place; small re-encodes prompts more often.
        num_files: documents looked at for similar chunks.
        num_chunks: most chunks.
        most_similar: Jaccard index to the cursor's surroundings above which a chunk only repeats them.
        chunk_chars: of all chunks together.
        definition_chars: of all definitions together; 0 looks up none.
    """

    budget_ms: float = 150.0
    patience_ms: float = 20.0
    retry_s: float = 2.0
    moved_lines: int = 30
    num_files: int = 20
    num_chunks: int = 4
    most_similar: float = 0.5
    chunk_chars: int = 8_000
    definition_chars: int = 4_000

    def __post_init__(self) -> None:
        if min(self.budget_ms, self.patience_ms, self.retry_s) < 0:
            raise ValueError(f"{self.budget_ms=}, {self.patience_ms=} and {self.retry_s=} must not be negative")
        if min(self.moved_lines, self.num_files, self.num_chunks, self.chunk_chars, self.definition_chars) < 0:
            raise ValueError("CollectorLimits: lines, files, chunks and characters must not be negative")
        if not 0 <= self.most_similar <= 1:
            raise ValueError(f"{self.most_similar=} must be between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedContext:
    """Text from elsewhere.

    Attributes:
        snippets: definitions of imported names, then similar chunks, best last.
        edits: recent edits as small diffs, newest last.
    """

    snippets: tuple[Snippet, ...] = ()
    edits: tuple[Snippet, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occasion:
    """What a choice depends on, besides the request."""

    line: int
    imports: tuple[str, ...]
    others: tuple[RecentDocument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """The collected text and what it was collected for.

    Attributes:
        request: the cursor; a repeated search starts there, not where the user has typed to since.
        occasion: what else it was made for.
        collected: what was found.
        retry_at_s: when to repeat an incomplete search; None if it was complete.
    """

    request: Request
    occasion: _Occasion
    collected: CollectedContext
    retry_at_s: float | None


class ContextCollector:
    """Collects for the documents of one editor. Belongs to one event loop.

    Args:
        documents: returns all that are open.
        find: asks the engine how names are defined.
        clock: seconds that never go backwards.
        why_not_read: decides which files may be used as context.
        limits: how much, how long.
        files: reads and keeps other files; None makes a store of its own.
    """

    def __init__(
        self,
        documents: Callable[[], Sequence[Document]],
        find: FindDefinitions,
        *,
        clock: Callable[[], float],
        why_not_read: WhyNotRead = lambda _path, _head: None,
        limits: CollectorLimits | None = None,
        files: WorkspaceFiles | None = None,
    ) -> None:
        self._documents = documents
        self._clock = clock
        self._limits = limits or CollectorLimits()
        self._files = files or WorkspaceFiles(why_not_read)
        self._find = find
        self._recent = RecentDocuments()
        self._edits = RecentEdits()
        self._choices: BoundedStore[str, _Choice] = BoundedStore(_MOST_KEPT)
        self._renewing: dict[str, asyncio.Task[None]] = {}

    async def collect(self, request: Request) -> CollectedContext:
        """Returns the choice for a request; starts a renewal where one is due, and waits for it within the limits."""
        open_documents = self._documents()
        for document in self._recent.observe(open_documents, request.uri):
            path = path_of(document.uri)
            # Whether the document of the request is private was asked before anything was collected for that text.
            is_own = document.uri == request.uri and request.is_about(document.version, document.text)
            is_allowed = is_own and len(document.text) <= MOST_CHARS
            if path is not None and (is_allowed or self._files.allows(path, document.text)):
                self._edits.observe(document.uri, path.name, document.text)
            else:
                self._edits.forget(document.uri)
        own = next((document for document in open_documents if document.uri == request.uri), None)
        occasion, choice = self._occasion(request, own), self._choices.get(request.uri)
        task = self._renewing.get(request.uri)
        due: tuple[Request, _Occasion] | None = None
        if (
            choice is None
            or abs(occasion.line - choice.occasion.line) > self._limits.moved_lines
            or occasion.imports != choice.occasion.imports
            or occasion.others != choice.occasion.others
        ):
            due = request, occasion
        elif choice.retry_at_s is not None and self._clock() >= choice.retry_at_s:
            due = choice.request, choice.occasion
        if task is None and due is not None:
            texts = {document.uri: document.text for document in open_documents}
            task = self._renewing[request.uri] = asyncio.create_task(self._renew(*due, texts))
            task.add_done_callback(lambda _: self._renewing.pop(request.uri, None))
        if task is not None:
            await asyncio.wait([task], timeout=self._limits.patience_ms / 1_000)
        choice = self._choices.get(request.uri)
        return choice.collected if choice else CollectedContext()

    def forget(self) -> None:
        """Drops what was collected; called when other files may be read than before."""
        self.close()
        self._choices.clear()
        self._edits = RecentEdits()

    def closed(self, uri: str) -> None:
        """Drops all of a document that is closed."""
        if (task := self._renewing.get(uri)) is not None:
            task.cancel()
        self._choices.pop(uri)
        self._edits.closed(uri)

    def close(self) -> None:
        """Cancels the renewals under way."""
        for task in self._renewing.values():
            task.cancel()

    def _occasion(self, request: Request, document: Document | None) -> _Occasion:
        text, line_start, line_end = request.text, request.line_start, request.line_end
        # The cursor's own line may be an import that is being typed.
        head = text[: min(line_start, _IMPORT_CHARS)] + text[line_end:_IMPORT_CHARS]
        if request.skipped:
            head = document.text[:_IMPORT_CHARS] if document is not None else ""
        if document is not None:
            line = document.lines.line_at(min(request.cursor, len(document.text)))
        else:
            line = text.count("\n", 0, request.offset)
        return _Occasion(
            line=line,
            imports=tuple(_IMPORT_LINE.findall(head)),
            others=tuple(self._recent.others(request.uri, request.language, self._limits.num_files)),
        )

    async def _renew(self, request: Request, occasion: _Occasion, texts: Mapping[str, str]) -> None:
        try:
            collected, is_complete = await self._collect(request, occasion, texts)
        except Exception as error:
            # Its message may quote the user's text. The choice is kept all the same, or every key would fail again.
            _log.error("collecting context failed with %s", type(error).__name__)
            collected, is_complete = CollectedContext(), True
        retry_at_s = None if is_complete else self._clock() + self._limits.retry_s
        choice = _Choice(request=request, occasion=occasion, collected=collected, retry_at_s=retry_at_s)
        self._choices.put(request.uri, choice)

    async def _collect(
        self, request: Request, occasion: _Occasion, texts: Mapping[str, str]
    ) -> tuple[CollectedContext, bool]:
        limits = self._limits
        near = around(request.text, request.offset)
        own = normalize_newlines(texts.get(request.uri, request.text)[:READ_CHARS])
        # A document that is no file is in no folder, so its imports cannot be found.
        path = path_of(request.uri) or Path(_NOWHERE, Path(request.path).name)
        importer = Importer(
            path=path,
            root=root_of(path, request.path),
            language=request.language,
            text=own,
            words=words_of(near),
        )
        open_texts = {file: text for uri, text in texts.items() if (file := path_of(uri)) is not None}
        search = ChunkSearch(
            importer,
            occasion.others,
            open_texts,
            self._files,
            most_similar=limits.most_similar,
            clock=self._clock,
        )
        definitions = DefinitionSearch(importer, open_texts, self._files, self._find)
        is_complete = False
        try:
            async with asyncio.timeout(limits.budget_ms / 1_000):
                if limits.num_chunks:
                    await search.run()
                is_complete = not limits.definition_chars or await definitions.run()
        except TimeoutError:
            pass
        return (
            CollectedContext(
                snippets=(
                    *definitions.chosen(most_chars=limits.definition_chars),
                    *search.chosen(num_chunks=limits.num_chunks, most_chars=limits.chunk_chars),
                ),
                edits=self._edits.snippets(request.uri, near),
            ),
            is_complete,
        )


def root_of(path: Path, shown: str) -> Path:
    """Returns the folder that a document's shown path is relative to; nothing outside it is read."""
    depth = len(Path(shown).parts)
    return path.parents[depth - 1] if 0 < depth <= len(path.parents) else path.parent
