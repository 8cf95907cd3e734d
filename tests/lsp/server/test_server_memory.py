"""The memory of the server does not grow with the number of messages or documents."""

from __future__ import annotations

import asyncio
import gc
import io
import tracemalloc
from pathlib import Path

from lsprotocol import types

from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import Document, Edit
from dgemma_lsp.engine_client.status import ServerStatus, StatusKind
from dgemma_lsp.request import Request
from dgemma_lsp.server.app import build_server
from dgemma_lsp.session import Session
from tests.lsp.fake_engine import FakeConnector
from tests.lsp.quiet_session import quiet_session

URI = "file:///a.py"
LONG_CHARS = 400_000
# Context is collected while requests are answered, for no longer than this.
RENEWED_S = 0.5


def question(session: Session, uri: str) -> Request:
    """Returns a request at the end of a document's first line."""
    document = session.documents.get(uri)
    assert document is not None
    text, path = document.text, uri.rpartition("/")[2]
    return Request(uri=uri, version=document.version, text=text, offset=text.index("\n"), path=path, language="python")


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


def test_no_progress_bar_that_is_over_is_kept() -> None:
    server = build_server(environ={"HOME": "/nowhere"})
    server.protocol.set_writer(io.BytesIO())  # pyright: ignore[reportArgumentType]
    status = ServerStatus(kind=StatusKind.LOADING, percent=50)
    for number in range(3):
        server.begin(f"load-{number}", status)
        server.end(f"load-{number}")
    assert not server.work_done_progress.tokens


async def test_no_text_of_a_closed_document_is_kept(tmp_path: Path) -> None:
    connector = FakeConnector()
    session = quiet_session(tmp_path, connector)

    async def use(number: int) -> None:
        uri = (tmp_path / f"{number}.py").as_uri()
        text = f"x = {number}\n# {'-' * LONG_CHARS}\n"
        session.documents.open(Document(uri=uri, version=0, language="python", text=text))
        for version in (1, 2):
            session.change(uri, version, [Edit(span=((0, 0), (0, 0)), text="y")], PositionEncoding.UTF16)
            await session.answer(question(session, uri))
        # The document before this one was its neighbour.
        session.close_document((tmp_path / f"{number - 1}.py").as_uri())

    tracemalloc.start()
    try:
        await use(0)
        await asyncio.sleep(RENEWED_S)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, 25):
            await use(number)
        connector.engines[0].contexts.clear()
        await asyncio.sleep(RENEWED_S)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    await session.close()
    assert grown < LONG_CHARS
