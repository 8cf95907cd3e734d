"""Edits that cannot be applied: nothing is offered in their document until its text is known again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lsp.editor import URI
from tests.lsp.raw_client import RawClient, framed, question, raw_client

OTHER = "file:///w/other.py"
FIRST = {"line": 0, "character": 0}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


def span(line: Any, character: Any) -> dict[str, Any]:
    return {"start": {"line": line, "character": character}, "end": {"line": line, "character": character}}


def edit(text: str) -> dict[str, Any]:
    return {"range": span(0, 0), "text": text}


def whole(text: Any, version: Any = 3, **range_: Any) -> dict[str, Any]:
    return {"textDocument": {"uri": URI, "version": version}, "contentChanges": [{"text": text} | range_]}


NULL_IS_FINE = [
    whole("new = ", range=None),
    whole("new = ", None),
    whole("new = ", None, range=None, rangeLength=None),
    {"textDocument": {"uri": URI}, "contentChanges": [{"text": "new = ", "rangeLength": -1}]},
    {
        "textDocument": {"uri": URI, "version": None},
        "contentChanges": [{"range": {"start": FIRST, "end": FIRST | {"character": 3}}, "text": "new"}],
    },
]
LOST = [
    whole("x", range=span(2**32 - 1, 0)),
    whole("x", range=span(0, 2**31)),
    whole("x", range=span(-1, 0)),
    whole("x", range=span(None, 0)),
    whole("x", range=span("0", 0)),
    whole("x", range=span(True, 0)),
    whole("x", range=7),
    whole("x", range={}),
    whole("x", "newest"),
    whole(None),
    whole(7),
    whole(None, range=span(0, 0)),
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": None},
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": {"text": "x"}},
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": "x"},
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [None]},
    {"textDocument": {"uri": URI, "version": 2}},
    {"contentChanges": [{"text": "x"}]},
    {"textDocument": {"uri": 7, "version": 2}, "contentChanges": [{"text": "x"}]},
    None,
]


async def offered(client: RawClient, uri: str = URI) -> list[str]:
    return [item["insertText"] for item in await client.ask(0, 99, uri=uri)]


async def test_null_in_place_of_an_absent_field_is_accepted(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        for params in NULL_IS_FINE:
            client.open("old = ")
            client.send({"method": "textDocument/didChange", "params": params})
            assert await offered(client) == ["new = 1"], params


async def test_edit_that_cannot_be_applied_ends_offers_until_the_text_is_known(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        for params in LOST:
            client.open("old = ")
            assert await offered(client) == ["old = 1"]
            client.send({"method": "textDocument/didChange", "params": params})
            assert await offered(client) == [], params
            document = {"uri": URI, "version": 4}
            client.notify("textDocument/didChange", textDocument=document, contentChanges=[edit("y")])
            assert await offered(client) == [], "an edit of a text that is not known"
            client.notify("textDocument/didChange", textDocument=document, contentChanges=[{"text": "x = "}, edit("y")])
            assert await offered(client) == ["yx = 1"], "from a whole text on it is known again"
            client.send({"method": "textDocument/didChange", "params": params})
            assert await offered(client) == [], params
            client.notify("textDocument/didClose", textDocument={"uri": URI})
        (told,) = client.sent("window/showMessage")
        assert "a.py could not be applied; close it and open it again" in told["params"]["message"]


async def test_other_documents_get_answers_as_before(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("old = ")
        client.open("other = ", uri=OTHER)
        client.send({"method": "textDocument/didChange", "params": whole("x", range=span(2**32 - 1, 0))})
        assert await offered(client) == []
        assert await offered(client, OTHER) == ["other = 1"]


@pytest.mark.parametrize("body", [b"{", b'{"method": "textDocument/didChange", "params": {"textDo'])
async def test_lost_body_may_have_been_an_edit_of_any_document(record: Path, body: bytes):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("old = ")
        client.open("other = ", uri=OTHER)
        for number in range(3):
            client.open("", uri=f"file:///w/{number}.py")
        client.write(framed(body))
        assert await offered(client) == []
        assert await offered(client, OTHER) == []
        (told,) = client.sent("window/showMessage")
        assert "a.py, other.py, 0.py and 2 more could not be applied" in told["params"]["message"]
        client.open("old = ")
        assert await offered(client) == ["old = 1"]


DEEP = "[" * 5_000 + "]" * 5_000


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1.5, "params": whole("x")},
        {"id": [], "params": whole("x")},
        {"id": 99, "params": whole(None)},
        {"params": whole("x") | {"deep": "DEEP"}},
    ],
)
async def test_edit_that_comes_as_a_request_or_too_deep_is_not_passed_over(record: Path, message: dict[str, Any]):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("old = ")
        body = json.dumps({"jsonrpc": "2.0", "method": "textDocument/didChange"} | message)
        client.write(framed(body.replace('"DEEP"', DEEP).encode()))
        assert await offered(client) == []
        client.open("old = ")
        assert await offered(client) == ["old = 1"]


async def test_edit_with_a_null_id_is_applied(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("old = ")
        client.send({"id": None, "method": "textDocument/didChange", "params": whole("new = ")})
        assert await offered(client) == ["new = 1"]


async def test_batch_is_refused_and_may_have_held_an_edit(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("old = ")
        client.write(framed(json.dumps([{"method": "textDocument/didChange", "params": whole("x")}]).encode()))
        assert await offered(client) == []


async def test_fill_and_preview_of_such_a_document_say_what_to_do(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("old = 1")
        client.send({"method": "textDocument/didChange", "params": whole("x", range=span(2**32 - 1, 0))})
        document = {"uri": URI, "version": 1}
        fill = {
            "textDocument": document,
            "range": {**span(0, 6), "end": {"line": 0, "character": 7}},
            "kind": "selection",
        }
        result = (await client.request("dgemma/fill", fill))["result"]
        assert result["candidates"] == []
        assert "open it" in result["message"]
        preview = {"textDocument": document, "position": {"line": 0, "character": 7}, "token": "t"}
        result = (await client.request("dgemma/denoise", preview))["result"]
        assert result["items"] == []
        assert "open it" in result["message"]


async def test_request_in_flight_about_a_text_that_is_lost_offers_nothing(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("LATER = ")

        later = client.begin("textDocument/inlineCompletion", params=question(0, 8))
        client.send({"method": "textDocument/didChange", "params": whole("x", range=span(2**32 - 1, 0))})
        assert not (await client.response(later)).get("result")


@pytest.mark.parametrize(
    "change",
    [
        {
            "cells": {
                "textContent": [{"document": {"uri": "cell:1", "version": 2}, "changes": [{"text": "x", "range": 7}]}]
            }
        },
        {"cells": {"textContent": 7}},
        {"cells": 7},
        7,
    ],
)
async def test_cell_whose_edit_cannot_be_applied_is_offered_nothing(record: Path, change: Any):
    async with raw_client(record) as client:
        await client.initialize()
        notebook = {"uri": "file:///w/n.ipynb", "notebookType": "jupyter-notebook", "version": 1}
        cells = [{"kind": 2, "document": "cell:1"}]
        item = {"uri": "cell:1", "languageId": "python", "version": 1, "text": "old = "}
        client.notify(
            "notebookDocument/didOpen", notebookDocument=notebook | {"cells": cells}, cellTextDocuments=[item]
        )
        assert await offered(client, "cell:1") == ["old = 1"]
        client.notify(
            "notebookDocument/didChange", notebookDocument={"uri": notebook["uri"], "version": 2}, change=change
        )
        assert await offered(client, "cell:1") == []
        whole_cell = {"document": {"uri": "cell:1", "version": None}, "changes": [{"text": "new = "}]}
        client.notify(
            "notebookDocument/didChange",
            notebookDocument={"uri": notebook["uri"], "version": None},
            change={"cells": {"textContent": [whole_cell]}},
        )
        assert await offered(client, "cell:1") == ["new = 1"]


async def test_document_opened_with_a_text_that_cannot_be_read_is_offered_nothing(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("old = ")
        client.notify(
            "textDocument/didOpen", textDocument={"uri": URI, "languageId": "python", "version": 1, "text": None}
        )
        assert await offered(client) == []
        client.notify(
            "textDocument/didOpen", textDocument={"uri": URI, "languageId": None, "version": None, "text": "x = "}
        )
        assert await offered(client) == ["x = 1"]
