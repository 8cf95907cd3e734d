"""An editor's open files without an editor: source files as documents, and the server's own collector over them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.syntax.definitions import DefinitionFinder

from dgemma_lsp.context.collector import CollectedContext, CollectorLimits, ContextCollector
from dgemma_lsp.documents.store import Document
from dgemma_lsp.request import Request, Trigger


class Workspace:
    """Open documents of a folder, and a cursor.

    Args:
        root: the workspace's folder.
        finder: the engine's parser, asked without a socket.
        limits: of the collector.
    """

    def __init__(self, root: Path, finder: DefinitionFinder, limits: CollectorLimits) -> None:
        self._root = root
        self._finder = finder
        self._open: dict[str, Document] = {}
        self._gatherer = ContextCollector(
            lambda: tuple(self._open.values()), self._find, clock=time.monotonic, limits=limits
        )

    def open(self, paths: Sequence[Path]) -> None:
        """Opens Python files, the last one visited last; what is no text is left out."""
        for path in paths:
            try:
                self.show(path, path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError):
                continue

    def show(self, path: Path, text: str) -> Document:
        """Makes `text` the newest version of a document."""
        known = self._open.get(path.as_uri())
        version = known.version + 1 if known else 1
        document = Document(uri=path.as_uri(), version=version, language="python", text=text)
        self._open[document.uri] = document
        return document

    async def gather(self, path: Path, text: str, offset: int) -> tuple[Request, CollectedContext]:
        """Returns the request at a cursor and the context collected for it."""
        document = self.show(path, text)
        request = Request(
            uri=document.uri,
            version=document.version,
            text=text,
            offset=offset,
            path=path.relative_to(self._root).as_posix(),
            language="python",
            trigger=Trigger.AUTOMATIC,
        )
        return request, await self._gatherer.collect(request)

    async def _find(self, query: DefinitionsQuery) -> Definitions:
        return Definitions(texts=self._finder.find(query.text, query.names, language=query.language, path=query.path))
