"""The request `dgemma/denoise` and its drafts, with a real client over stdio."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import URI, Editor, editing
from tests.lsp.waiting import until

REQUEST_CANCELLED = -32800
INVALID_PARAMS = -32602
pytestmark = pytest.mark.e2e


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


class Watcher:
    """An editor that asks for previews and records their drafts."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self.drafts: list[Any] = []
        editor.client.feature("dgemma/draft")(lambda draft: self.drafts.append(draft))

    def send(self, position: types.Position, *, msg_id: str = "w", token: Any = "t", **document: Any) -> Future[Any]:
        params = {
            "textDocument": {"uri": URI} | document,
            "position": {"line": position.line, "character": position.character},
            "token": token,
        }
        return self._editor.client.protocol.send_request("dgemma/denoise", params, msg_id=msg_id)

    async def watch(self, position: types.Position, **values: Any) -> Any:
        return await asyncio.wrap_future(self.send(position, **values))


async def test_drafts_come_before_the_answer_and_under_their_token(record: Path) -> None:
    async with editing(record, answers={"DRAFT = ": "1 + 1"}) as editor:
        watcher = Watcher(editor)
        result = await watcher.watch(editor.open("😋\nDRAFT = |\n"), token="abc", version=1)
        (draft,) = watcher.drafts
        assert (draft.token, draft.step, draft.stepsLimit) == ("abc", 1, 4)
        assert 0 <= draft.elapsedMs < result.elapsedMs
        ((span),) = draft.spans
        assert (span.text, span.confidence, span.settled) == ("1 + 1", 0.5, False)
        (item,) = result.items
        assert item.insertText == "DRAFT = 1 + 1"
        assert (item.range.start.line, item.range.start.character, item.range.end.character) == (1, 0, 8)
        assert (result.finish, result.steps, result.message) == ("stable", 3, "")


async def test_ghost_text_and_preview_do_not_end_each_other(record: Path) -> None:
    async with editing(record, answers={"LATER = ": "1"}) as editor:
        watcher, position = Watcher(editor), editor.open("LATER = |")
        watching, (ghost,) = await asyncio.gather(watcher.watch(position), editor.ask(position))
        assert ghost.insert_text == watching.items[0].insertText == "LATER = 1"


async def test_newer_preview_ends_the_older(record: Path) -> None:
    async with editing(record, answers={"x = ": "1"}) as editor:
        watcher, position = Watcher(editor), editor.open("SLOW|")
        older = watcher.send(position, msg_id="older")
        await until(lambda: "asked SLOW" in editor.events())
        editor.edit(types.Position(line=0, character=0), position, "x = ")
        newer = await watcher.watch(types.Position(line=0, character=4), msg_id="newer")
        assert newer.items[0].insertText == "x = 1"
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wrap_future(older)
        assert caught.value.code == REQUEST_CANCELLED


async def test_cancelling_stops_the_engine(record: Path) -> None:
    async with editing(record) as editor:
        older = Watcher(editor).send(editor.open("SLOW|"), msg_id="gone")
        await until(lambda: "asked SLOW" in editor.events())
        editor.client.cancel_request(types.CancelParams(id="gone"))
        await until(lambda: "cancelled SLOW" in editor.events())
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wrap_future(older)
        assert caught.value.code == REQUEST_CANCELLED


async def test_closing_the_document_stops_the_engine(record: Path) -> None:
    async with editing(record) as editor:
        answer = Watcher(editor).send(editor.open("SLOW|"), msg_id="gone")
        await until(lambda: "asked SLOW" in editor.events())
        document = types.TextDocumentIdentifier(uri=URI)
        editor.client.text_document_did_close(types.DidCloseTextDocumentParams(text_document=document))
        await until(lambda: "cancelled SLOW" in editor.events())
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wrap_future(answer)
        assert caught.value.code == REQUEST_CANCELLED


async def test_refused_preview_has_a_reason(record: Path) -> None:
    async with editing(record, answers={"": "1"}) as editor:
        watcher, position = Watcher(editor), editor.open("x = |")
        unknown = await watcher.watch(position, msg_id="a", uri="file:///w/other.py")
        assert (unknown.items, unknown.finish) == ([], "empty")
        assert "not open" in unknown.message
        stale = await watcher.watch(position, msg_id="b", version=7)
        assert (stale.items, stale.steps) == ([], 0)
        assert "has changed" in stale.message
        editor.open("KEY=|", uri="file:///w/.env")
        private = await watcher.watch(position, msg_id="c", uri="file:///w/.env")
        assert (private.items, "private" in private.message) == ([], True)
        assert not [event for event in editor.events() if event.startswith("asked")]


async def test_document_that_changes_meanwhile_gets_nothing(record: Path) -> None:
    async with editing(record, answers={"LATER = ": "1"}) as editor:
        watcher, position = Watcher(editor), editor.open("LATER = |")
        answer = watcher.send(position)
        await until(lambda: "asked LATER = " in editor.events())
        editor.edit(position, position, "2")
        result = await asyncio.wrap_future(answer)
        assert (result.items, "has changed" in result.message) == ([], True)


async def test_engine_that_is_not_there_is_reported(record: Path) -> None:
    async with editing(record, engine={"failures": 9}) as editor:
        result = await Watcher(editor).watch(editor.open("x = |"))
        assert (result.items, result.message) == ([], "no engine answers; start one with: dgemma-engine start")


async def test_switched_off_is_reported(record: Path) -> None:
    async with editing(record, answers={"": "1"}, options={"enabled": False}) as editor:
        result = await Watcher(editor).watch(editor.open("x = |"))
        assert (result.items, "dgemma.enabled" in result.message) == ([], True)


@pytest.mark.parametrize(
    "wrong", [{"token": 5}, {"token": None}, {"uri": 5}, {"version": "new"}, {"line": -1}, {"line": None}]
)
async def test_wrong_parameters_are_refused_with_the_right_form(record: Path, wrong: dict[str, Any]) -> None:
    async with editing(record, answers={"": "1"}) as editor:
        position = editor.open("x = |")
        params: dict[str, Any] = {
            "textDocument": {"uri": wrong.get("uri", URI), "version": wrong.get("version")},
            "position": {"line": wrong.get("line", position.line), "character": position.character},
            "token": wrong.get("token", "t"),
        }
        with pytest.raises(JsonRpcException, match="token: string") as caught:
            await editor.client.protocol.send_request_async("dgemma/denoise", params)
        assert caught.value.code == INVALID_PARAMS
        assert await editor.ask(position)
