"""Messages no editor should send: the server answers by the protocol's rules and goes on."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import URI, Editor, editing, inserted
from tests.lsp.waiting import until

pytestmark = pytest.mark.e2e
METHOD_NOT_FOUND, INVALID_PARAMS = -32601, -32602


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


def position(line: int, character: int) -> dict[str, int]:
    return {"line": line, "character": character}


def edit(version: Any, start: dict[str, int], end: dict[str, int], text: str, uri: str = URI) -> dict[str, Any]:
    change = {"range": {"start": start, "end": end}, "text": text}
    return {"textDocument": {"uri": uri, "version": version}, "contentChanges": [change]}


def notify(editor: Editor, method: str, params: Any) -> None:
    editor.client.protocol._send_data({"jsonrpc": "2.0", "method": method, "params": params})


async def request(editor: Editor, method: str, params: Any) -> Any:
    answered: Future[Any] = Future()
    editor.client.protocol._request_futures["raw"] = answered
    editor.client.protocol._send_data({"jsonrpc": "2.0", "id": "raw", "method": method, "params": params})
    return await asyncio.wait_for(asyncio.wrap_future(answered), 5)


async def lives(editor: Editor) -> None:
    assert len(await editor.ask(editor.open("alive = |", uri="file:///w/alive.py"), uri="file:///w/alive.py")) == 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (edit(1, position(0, 4), position(0, 4), "2"), "x = 2\n"),  # A version that was there before.
        (edit(-7, position(0, 4), position(0, 4), "2"), "x = 2\n"),
        (edit(9, position(0, 99), position(77, 0), "2"), "x = 2"),  # Past the ends of line and text.
        (edit(9, position(0, 4), position(0, 0), "y = "), "y = \n"),  # An end before its start.
        (edit(9, position(9, 9), position(0, 4), ""), "x = "),
        (edit(9, position(0, 4), position(0, 4), "", uri="file:///w/never.py"), "x = \n"),
    ],
)
async def test_odd_edits_are_clamped(record: Path, params: dict[str, Any], expected: str):
    async with editing(record, answers={"": "!", "alive = ": "1"}) as editor:
        editor.open("x = |\n")
        notify(editor, "textDocument/didChange", params)
        items = await editor.ask(types.Position(line=0, character=99), invoked=True)
        assert inserted(expected, items, editor.encoding).splitlines()[0] == f"{expected.splitlines()[0]}!"
        await lives(editor)


async def test_edit_inside_a_surrogate_pair_begins_before_it(record: Path):
    async with editing(record, answers={"y😋 = ": "1"}) as editor:
        editor.open("😋 = |")
        notify(editor, "textDocument/didChange", edit(2, position(0, 1), position(0, 1), "y"))
        items = await editor.ask(types.Position(line=0, character=6))
        assert inserted("y😋 = ", items, editor.encoding) == "y😋 = 1"


async def test_request_inside_a_surrogate_pair_is_moved_before_it(record: Path):
    async with editing(record, answers={"a": "b"}) as editor:
        editor.open("a😋|")
        (item,) = await editor.ask(types.Position(line=0, character=2))
        assert item.range is not None and item.range.end == types.Position(line=0, character=1)


async def test_edit_that_keeps_the_version_still_makes_an_answer_stale(record: Path):
    async with editing(record, answers={"LATER": "1", "alive = ": "1"}) as editor:
        asked = asyncio.create_task(editor.ask(editor.open("LATER|")))
        await until(lambda: "asked LATER" in editor.events())
        notify(editor, "textDocument/didChange", edit(1, position(0, 0), position(0, 0), "y"))
        with pytest.raises(JsonRpcException):
            await asyncio.wait_for(asked, 10)
        await lives(editor)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("$/cancelRequest", {"id": 4_711}),
        ("$/cancelRequest", {"id": "never asked"}),
        ("$/cancelRequest", {"id": None}),
        ("$/cancelRequest", {}),
        ("window/workDoneProgress/cancel", {"token": "never begun"}),
        ("textDocument/didClose", {"textDocument": {"uri": "file:///w/never.py"}}),
        ("textDocument/didChange", {"textDocument": 7}),
        ("textDocument/didChange", edit("newest", position(0, 0), position(0, 0), "")),
        ("textDocument/didOpen", {"textDocument": {"uri": URI}}),
        ("workspace/didChangeConfiguration", {"settings": [1, "x"]}),
        ("workspace/didChangeConfiguration", {"settings": {"dgemma": {"enabled": "yes", "deadlineMs": {}}}}),
        ("workspace/didChangeWatchedFiles", {"changes": "all"}),
        (
            "workspace/didChangeWorkspaceFolders",
            {"event": {"added": [], "removed": [{"uri": "file:///n", "name": ""}]}},
        ),
        ("notebookDocument/didClose", {"notebookDocument": {"uri": "file:///w/a.ipynb"}, "cellTextDocuments": []}),
        ("dgemma/unheardOf", {"x": 1}),
        ("$/unheardOf", None),
    ],
)
async def test_odd_notifications_change_nothing(record: Path, method: str, params: Any):
    async with editing(record, answers={"alive = ": "1"}) as editor:
        notify(editor, method, params)
        await lives(editor)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("textDocument/inlineCompletion", {"position": "here"}, INVALID_PARAMS),
        ("textDocument/inlineCompletion", None, INVALID_PARAMS),
        ("dgemma/unheardOf", {}, METHOD_NOT_FOUND),
        ("textDocument/hover", {"textDocument": {"uri": URI}, "position": position(0, 0)}, METHOD_NOT_FOUND),
    ],
)
async def test_odd_requests_are_answered_with_an_error(record: Path, method: str, params: Any, code: int):
    async with editing(record, answers={"alive = ": "1"}) as editor:
        with pytest.raises(JsonRpcException) as caught:
            await request(editor, method, params)
        assert caught.value.code == code
        await lives(editor)


@pytest.mark.parametrize("arguments", [[], ["one"], [1, 2], [{}], None])
async def test_odd_arguments_of_a_command_are_answered(record: Path, arguments: Any):
    async with editing(record, answers={"alive = ": "1"}) as editor:
        try:
            await request(editor, "workspace/executeCommand", {"command": "dgemma.accepted", "arguments": arguments})
        except JsonRpcException as error:
            assert error.code < 0
        await lives(editor)
