"""Queries for definitions, answered outside the event loop."""

from __future__ import annotations

import asyncio

from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.syntax.definitions import DefinitionFinder


class DefinitionWorker:
    """Finds definitions on another thread, so that a long parse delays no request; one at a time, since parsers are not
    thread-safe.
    """

    def __init__(self) -> None:
        self._finder = DefinitionFinder()
        self._finding = asyncio.Lock()

    async def find(self, query: DefinitionsQuery) -> Definitions:
        """Returns how names are defined in a text."""
        async with self._finding:
            texts = await asyncio.to_thread(
                self._finder.find, query.text, query.names, language=query.language, path=query.path
            )
        return Definitions(texts=texts)
