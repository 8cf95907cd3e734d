"""A real LSP client over stdio against `fake_server`, with the actions of an editor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lsprotocol import types
from pytest_lsp import LanguageClient
from pytest_lsp.client import make_test_lsp_client

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding
from tests.lsp.cursor import split_cursor

SERVER = Path(__file__).with_name("fake_server.py")
URI = "file:///w/a.py"


class Editor:
    def __init__(self, client: LanguageClient, encoding: PositionEncoding, record: Path) -> None:
        self.client = client
        self.encoding = encoding
        self.record = record
        self.statuses: list[Any] = []
        self.missing: list[Any] = []
        self.hints: list[Any] = []
        self.result: types.InitializeResult | None = None
        self._version = 0

    def open(self, marked: str, *, uri: str = URI) -> types.Position:
        """Opens a document and returns where its `|` is."""
        text, offset = split_cursor(marked)
        self._version += 1
        item = types.TextDocumentItem(uri=uri, language_id="python", version=self._version, text=text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))
        return self.position(text, offset)

    def position(self, text: str, offset: int) -> types.Position:
        line, character = LineIndex(text).position(offset, self.encoding)
        return types.Position(line=line, character=character)

    def edit(self, start: types.Position, end: types.Position, text: str, *, uri: str = URI) -> None:
        self._version += 1
        change = types.TextDocumentContentChangePartial(range=types.Range(start=start, end=end), text=text)
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                text_document=types.VersionedTextDocumentIdentifier(uri=uri, version=self._version),
                content_changes=[change],
            )
        )

    async def ask(
        self,
        position: types.Position,
        *,
        uri: str = URI,
        invoked: bool = False,
        selected: types.SelectedCompletionInfo | None = None,
    ) -> list[types.InlineCompletionItem]:
        """Asks for ghost text once; `selected` is an entry of a menu that is open."""
        params = _question(position, uri, invoked=invoked, selected=selected)
        items = await self.client.text_document_inline_completion_async(params)
        assert isinstance(items, list), "an empty list, never null"
        return items

    def send(self, position: types.Position, *, msg_id: str) -> Future[Any]:
        """Asks for ghost text under an id that can be cancelled."""
        return self.client.protocol.send_request(
            types.TEXT_DOCUMENT_INLINE_COMPLETION, _question(position, URI, invoked=False), msg_id=msg_id
        )

    async def menu(self, position: types.Position, *, uri: str = URI) -> list[types.CompletionItem]:
        """Asks for the completion menu once."""
        params = types.CompletionParams(text_document=types.TextDocumentIdentifier(uri=uri), position=position)
        items = await self.client.text_document_completion_async(params)
        assert isinstance(items, list)
        return items

    def events(self) -> list[str]:
        """Returns the events that the fake engine has recorded."""
        return self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []

    def kinds(self) -> list[str]:
        return [status.kind for status in self.statuses]


def _question(
    position: types.Position, uri: str, *, invoked: bool, selected: types.SelectedCompletionInfo | None = None
) -> types.InlineCompletionParams:
    kinds = types.InlineCompletionTriggerKind
    return types.InlineCompletionParams(
        text_document=types.TextDocumentIdentifier(uri=uri),
        position=position,
        context=types.InlineCompletionContext(
            trigger_kind=kinds.Invoked if invoked else kinds.Automatic, selected_completion_info=selected
        ),
    )


def inserted(text: str, items: list[types.InlineCompletionItem], encoding: PositionEncoding) -> str:
    """Returns what an editor makes of `text` when it accepts the one item."""
    (item,) = items
    assert item.range is not None
    assert isinstance(item.insert_text, str)
    return replaced(text, item.range, item.insert_text, encoding)


def replaced(text: str, span: types.Range, new_text: str, encoding: PositionEncoding) -> str:
    assert span.start.line == span.end.line, "a range of one line only"
    lines = LineIndex(text)
    start = lines.offset(span.start.line, span.start.character, encoding)
    end = lines.offset(span.end.line, span.end.character, encoding)
    return text[:start] + new_text + text[end:]


def fake_server(record: Path, *, answers: dict[str, str] | None, engine: dict[str, Any] | None) -> list[str]:
    """Returns the command of a server over `FakeConnector`, whose options are `engine`."""
    return [sys.executable, str(SERVER), str(record), json.dumps((engine or {}) | {"answers": answers or {}})]


@asynccontextmanager
async def editing(
    record: Path,
    *,
    command: list[str] | None = None,
    answers: dict[str, str] | None = None,
    engine: dict[str, Any] | None = None,
    options: Any = None,
    configuration: dict[str, Any] | None = None,
    encoding: PositionEncoding = PositionEncoding.UTF16,
    progress: bool = False,
    dynamic: bool = False,
    commands: bool = False,
    notebooks: bool = False,
    experimental: Any = None,
    root: str | None = "file:///w",
    root_path: str | None = None,
    folders: list[str] | None = None,
) -> AsyncGenerator[Editor]:
    """Starts a server and a session with it, and ends both as an editor does.

    `command` may be the real one, `[sys.executable, "-m", "dgemma_lsp"]`; else `answers` and `engine` configure a fake.
    """
    client = make_test_lsp_client()
    editor = Editor(client, encoding, record)
    client.feature("dgemma/status")(lambda status: editor.statuses.append(status))
    client.feature("dgemma/modelMissing")(lambda model: editor.missing.append(model))
    client.feature("dgemma/learnHint")(lambda hint: editor.hints.append(hint))
    if configuration is not None:
        client.set_configuration({"dgemma": configuration})
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    await client.start_io(*(command or fake_server(record, answers=answers, engine=engine)), env=environ)
    capabilities = types.ClientCapabilities(
        general=types.GeneralClientCapabilities(position_encodings=[types.PositionEncodingKind(encoding.value)]),
        window=types.WindowClientCapabilities(work_done_progress=progress),
        workspace=types.WorkspaceClientCapabilities(
            configuration=configuration is not None,
            execute_command=types.ExecuteCommandClientCapabilities() if commands else None,
            did_change_watched_files=types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=dynamic),
            did_change_configuration=types.DidChangeConfigurationClientCapabilities(dynamic_registration=dynamic),
        ),
        notebook_document=types.NotebookDocumentClientCapabilities(types.NotebookDocumentSyncClientCapabilities())
        if notebooks
        else None,
        experimental=experimental,
        text_document=types.TextDocumentClientCapabilities(
            inline_completion=types.InlineCompletionClientCapabilities(),
            completion=types.CompletionClientCapabilities(dynamic_registration=dynamic),
        ),
    )
    params = types.InitializeParams(
        capabilities=capabilities,
        root_uri=root,
        root_path=root_path,
        workspace_folders=None if folders is None else [types.WorkspaceFolder(uri=uri, name="") for uri in folders],
        initialization_options=options,
    )
    editor.result = await client.initialize_session(params)
    try:
        yield editor
    finally:
        await client.shutdown_session()
        await client.stop()
