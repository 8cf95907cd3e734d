"""Documents visited lately -> the windows of them that have most words in common with the text around a cursor.

One window a document. Cutting a text into windows is done in slices, so that the event loop is never held up, and once
for each version of the text.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dgemma_engine.protocol.messages import Snippet

from dgemma_lsp.context.chunks import Window, best_window, windows_of
from dgemma_lsp.context.import_definitions import Importer, shown_path
from dgemma_lsp.context.recent_documents import Visit
from dgemma_lsp.context.workspace_files import ProjectFiles
from dgemma_lsp.documents.uri import path_of

_SLICE_S = 0.004
_MOST_KEPT = 64
# Some 10 KiB each, mostly words.
_MOST_WINDOWS = 2_000


class SimilarWindows:
    """Keeps the windows of a few documents, least recently used out.

    Args:
        files: reads what is not open.
        clock: seconds that never go backwards.
    """

    def __init__(self, files: ProjectFiles, *, clock: Callable[[], float]) -> None:
        self._files = files
        self._clock = clock
        self._kept: OrderedDict[Path, tuple[int, list[Window]]] = OrderedDict()

    def search(
        self, importer: Importer, visits: Sequence[Visit], open_texts: Mapping[Path, str], *, most_similar: float
    ) -> WindowSearch:
        """Returns a search that has not begun.

        Args:
            importer: the cursor's document.
            visits: other documents, newest visit first.
            open_texts: texts that the editor holds.
            most_similar: see `best_window`.
        """
        return WindowSearch(self, importer, visits, open_texts, most_similar)

    async def windows(self, path: Path, open_texts: Mapping[Path, str]) -> Sequence[Window]:
        """Returns the windows of a document; none if it must not or cannot be read."""
        text = open_texts.get(path)
        if text is None:
            file = await self._files.first([path])
            text = "" if file is None else file[1]
        elif not self._files.allows(path, text):
            text = ""
        kept, stamp = self._kept.pop(path, None), hash(text)
        if kept is None or kept[0] != stamp:
            kept = stamp, await self._cut(text)
        self._kept[path] = kept
        while len(self._kept) > _MOST_KEPT or (
            len(self._kept) > 1 and sum(len(windows) for _, windows in self._kept.values()) > _MOST_WINDOWS
        ):
            self._kept.popitem(last=False)
        return kept[1]

    async def _cut(self, text: str) -> list[Window]:
        windows: list[Window] = []
        since_s = self._clock()
        for window in windows_of(text.replace("\r\n", "\n").replace("\r", "\n")):
            windows.append(window)
            if self._clock() - since_s > _SLICE_S:
                await asyncio.sleep(0)
                since_s = self._clock()
        return windows


class WindowSearch:
    """The best windows for one place; what was found by the time it is stopped can be used. Made by `search`."""

    def __init__(
        self,
        source: SimilarWindows,
        importer: Importer,
        visits: Sequence[Visit],
        open_texts: Mapping[Path, str],
        most_similar: float,
    ) -> None:
        self._source = source
        self._importer = importer
        self._visits = visits
        self._open_texts = open_texts
        self._most_similar = most_similar
        self._found: list[tuple[float, Path, Window]] = []

    async def run(self) -> None:
        """Looks at each document."""
        for visit in self._visits:
            path = path_of(visit.uri)
            if path is None or path == self._importer.path:
                continue
            windows = await self._source.windows(path, self._open_texts)
            best = best_window(windows, self._importer.words, most_similar=self._most_similar)
            if best is not None:
                self._found.append((best[0], path, best[1]))
            await asyncio.sleep(0)

    def chosen(self, *, num_windows: int, most_chars: int) -> tuple[Snippet, ...]:
        """Returns the best windows that fit, best last; of equals the one visited later counts for more."""
        best = sorted(self._found, key=lambda found: -found[0])[:num_windows]
        taken: list[Snippet] = []
        for _, path, window in best:
            if len(window.text) <= most_chars:
                most_chars -= len(window.text)
                taken.append(Snippet(path=shown_path(path, self._importer.root), text=window.text))
        return tuple(reversed(taken))
