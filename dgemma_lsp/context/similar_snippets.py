"""Recent documents -> their chunks that share most words with the text around a cursor, one for each document.

Cuts a text in slices of 4 ms, so that the event loop is not held up, and once for each version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.protocol.messages import Snippet

from dgemma_lsp.context.chunks import Chunk, best_chunk, chunks_of
from dgemma_lsp.context.import_definitions import Importer, shown_path
from dgemma_lsp.context.recent_activity import RecentDocument
from dgemma_lsp.context.workspace_files import WorkspaceFiles
from dgemma_lsp.documents.uri import path_of

_SLICE_S = 0.004


class ChunkSearch:
    """The best chunks for one cursor; those found before it is cancelled can be used.

    Args:
        importer: the cursor's document.
        recent: other documents, newest visit first.
        open_texts: texts that the editor holds.
        files: reads what is not open, and keeps the chunks.
        most_similar: see `best_chunk`.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        importer: Importer,
        recent: Sequence[RecentDocument],
        open_texts: Mapping[Path, str],
        files: WorkspaceFiles,
        *,
        most_similar: float,
        clock: Callable[[], float],
    ) -> None:
        self._importer = importer
        self._recent = recent
        self._open_texts = open_texts
        self._files = files
        self._most_similar = most_similar
        self._clock = clock
        self._found: list[tuple[float, Path, Chunk]] = []

    async def run(self) -> None:
        """Compares the chunks of each document."""
        for document in self._recent:
            path = path_of(document.uri)
            if path is None or path == self._importer.path:
                continue
            chunks = await self._chunks(path)
            best = best_chunk(chunks, self._importer.words, most_similar=self._most_similar)
            if best is not None:
                self._found.append((best[0], path, best[1]))
            await asyncio.sleep(0)

    def chosen(self, *, num_chunks: int, most_chars: int) -> tuple[Snippet, ...]:
        """Returns the best chunks that fit, best last; of equals the one of the document visited last."""
        best = sorted(self._found, key=lambda found: -found[0])[:num_chunks]
        taken: list[Snippet] = []
        for _, path, chunk in best:
            if len(chunk.text) <= most_chars:
                most_chars -= len(chunk.text)
                taken.append(Snippet(path=shown_path(path, self._importer.root), text=chunk.text))
        return tuple(reversed(taken))

    async def _chunks(self, path: Path) -> Sequence[Chunk]:
        """Returns the chunks of a document; none if it must not or cannot be read."""
        text = self._open_texts.get(path)
        if text is None:
            file = await self._files.first([path])
            text = None if file is None else file[1]
        elif not self._files.allows(path, text):
            text = None
        if text is None:
            return ()
        facts = self._files.facts(path, text)
        if facts.chunks is None:
            facts.chunks = await self._cut(text)
        self._files.keep(path, facts)
        return facts.chunks

    async def _cut(self, text: str) -> list[Chunk]:
        chunks: list[Chunk] = []
        since_s = self._clock()
        for chunk in chunks_of(normalize_newlines(text)):
            chunks.append(chunk)
            if self._clock() - since_s > _SLICE_S:
                await asyncio.sleep(0)
                since_s = self._clock()
        return chunks
