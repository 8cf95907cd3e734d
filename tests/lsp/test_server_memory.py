"""What a day of typing leaves behind in the server: nothing that grows with the number of messages."""

from __future__ import annotations

import asyncio

from lsprotocol import types

from dgemma_lsp.server import build_server

URI = "file:///a.py"


async def test_no_future_of_a_notification_is_kept() -> None:
    server = build_server(environ={"HOME": "/nowhere"})
    protocol = server.protocol
    opened = types.TextDocumentItem(uri=URI, language_id="python", version=0, text="x = 1\n")
    notify = protocol._handle_notification  # pyright: ignore[reportPrivateUsage]
    notify(types.TEXT_DOCUMENT_DID_OPEN, types.DidOpenTextDocumentParams(text_document=opened))
    for version in range(1, 51):
        change = types.TextDocumentContentChangeWholeDocument(text=f"x = {version}\n")
        document = types.VersionedTextDocumentIdentifier(uri=URI, version=version)
        notify(
            types.TEXT_DOCUMENT_DID_CHANGE,
            types.DidChangeTextDocumentParams(text_document=document, content_changes=[change]),
        )
    await asyncio.sleep(0)
    current = server.session.documents.get(URI)
    assert current is not None
    assert current.version == 50
    assert not protocol._request_futures  # pyright: ignore[reportPrivateUsage]
