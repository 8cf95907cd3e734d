"""An editor reduced to what a benchmark needs of it: one document, edits, and requests for ghost text over stdio."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from dgemma_engine.model_store.catalogue import TINY
from lsprotocol import types
from pygls.lsp.client import LanguageClient

URI = "file:///bench/document.py"


class Editor:
    """A session with the real language server."""

    def __init__(self, client: LanguageClient) -> None:
        self.client = client
        self._version = 1

    def open(self, text: str) -> None:
        """Opens the document."""
        item = types.TextDocumentItem(uri=URI, language_id="python", version=self._version, text=text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))

    def type(self, at: types.Position, text: str) -> None:
        """Inserts `text`."""
        self._version += 1
        change = types.TextDocumentContentChangePartial(range=types.Range(start=at, end=at), text=text)
        identifier = types.VersionedTextDocumentIdentifier(uri=URI, version=self._version)
        params = types.DidChangeTextDocumentParams(text_document=identifier, content_changes=[change])
        self.client.text_document_did_change(params)

    async def ask(
        self,
        at: types.Position,
        trigger: types.InlineCompletionTriggerKind = types.InlineCompletionTriggerKind.Automatic,
    ) -> list[types.InlineCompletionItem]:
        """Asks for ghost text once."""
        params = types.InlineCompletionParams(
            text_document=types.TextDocumentIdentifier(uri=URI),
            position=at,
            context=types.InlineCompletionContext(trigger_kind=trigger),
        )
        items = await self.client.text_document_inline_completion_async(params)
        assert isinstance(items, list)
        return items


@asynccontextmanager
async def editing(options: dict[str, Any], runtime: str, log: str = "/dev/null") -> AsyncGenerator[Editor]:
    """Starts `python -m dgemma_lsp` and a session with it.

    Args:
        options: settings, as initializationOptions; the model is `tiny` where they name none.
        runtime: folder for the engine's socket, and for counts that are not the user's.
        log: file that what the server writes to stderr is appended to.
    """
    client = LanguageClient("bench", "1")
    client.feature("dgemma/status")(lambda _status: None)
    environ = os.environ | {"DGEMMA_RUNTIME_DIR": runtime, "XDG_STATE_HOME": runtime}
    await client.start_io("sh", "-c", 'exec "$0" -m dgemma_lsp 2>>"$1"', sys.executable, log, env=environ)
    params = types.InitializeParams(
        capabilities=types.ClientCapabilities(),
        process_id=os.getpid(),
        initialization_options={"engine": {"model": TINY}, **options},
    )
    await client.initialize_async(params)
    client.initialized(types.InitializedParams())
    try:
        yield Editor(client)
    finally:
        await client.shutdown_async(None)
        client.exit(None)
        await asyncio.wait_for(client.stop(), 20)
