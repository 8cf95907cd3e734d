"""One answer to every request, in every state of a session: before `initialize`, after `shutdown`, at the end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.lsp.editor import URI
from tests.lsp.raw_client import RawClient, events, framed, question, raw_client
from tests.lsp.waiting import until

PARSE_ERROR, INVALID_REQUEST, NOT_INITIALIZED, CANCELLED = -32700, -32600, -32002, -32800
DYNAMIC = {
    "window": {"workDoneProgress": True},
    "workspace": {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}},
}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


async def ended(client: RawClient) -> int:
    return await asyncio.wait_for(client.exit_code(), 20)


def fill(kind: str = "selection") -> dict[str, Any]:
    span = {"start": {"line": 0, "character": 8}, "end": {"line": 0, "character": 9}}
    return {"textDocument": {"uri": URI, "version": 1}, "range": span, "kind": kind}


@pytest.mark.parametrize("unanswered", ["client/registerCapability", "workspace/configuration"])
async def test_shutdown_while_a_request_of_the_server_is_pending_returns_null(record: Path, unanswered: str):
    async with raw_client(record) as client:
        if unanswered != "client/registerCapability":
            client.replies["client/registerCapability"] = {"result": None}
        await client.initialize(capabilities=DYNAMIC)
        await until(lambda: bool(client.sent(unanswered)))
        assert (await client.request("shutdown"))["result"] is None
        client.send({"method": "exit"})
        assert await ended(client) == 0


@pytest.mark.parametrize("method", ["dgemma/fill", "workspace/executeCommand", "textDocument/inlineCompletion"])
async def test_shutdown_while_a_request_is_in_flight_answers_both(record: Path, method: str):
    async with raw_client(record) as client:
        client.replies["window/workDoneProgress/create"] = {"result": None}
        await client.initialize(capabilities={"window": {"workDoneProgress": True}})
        client.open("SLOWX = 1")
        params: dict[str, Any] = {
            "dgemma/fill": fill(),
            "workspace/executeCommand": {"command": "dgemma.fill", "arguments": [fill()]},
        }.get(method, question(0, 9))
        slow = client.begin(method, params=params)
        await until(lambda: any(event.startswith("asked SLOW") for event in events(record)))
        assert (await client.request("shutdown"))["result"] is None
        await client.response(slow)
        client.send({"method": "exit"})
        assert await ended(client) == 0
        assert len(client.responses(slow)) == 1


async def test_fill_ended_by_shutdown_says_so(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("SLOWX = 1")
        slow = client.begin("dgemma/fill", params=fill())
        await until(lambda: any(event.startswith("asked SLOW") for event in events(record)))
        await client.request("shutdown")
        assert (await client.response(slow))["result"]["message"] == "the server is shutting down"


async def test_shutdown_while_an_edit_is_not_yet_applied_answers_the_command(record: Path):
    async with raw_client(record, answers={"": "2"}) as client:
        await client.initialize()
        client.open("value = 1")
        command = client.begin("workspace/executeCommand", params={"command": "dgemma.fill", "arguments": [fill()]})
        await until(lambda: bool(client.sent("workspace/applyEdit")))
        assert (await client.request("shutdown"))["result"] is None
        await client.response(command)


async def test_shutdown_and_exit_in_one_write_are_both_obeyed(record: Path):
    async with raw_client(record) as client:
        await client.initialize(capabilities=DYNAMIC)
        client.open("SLOWX = 1")
        slow = client.begin("textDocument/inlineCompletion", params=question(0, 9))
        shutdown = client.begin("shutdown")
        client.send({"method": "exit"})
        assert await ended(client) == 0
        assert (await client.response(shutdown))["result"] is None
        assert len(client.responses(slow)) == 1


async def test_exit_without_shutdown_answers_what_is_in_flight(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("SLOWX = 1")
        slow = client.begin("textDocument/inlineCompletion", params=question(0, 9))
        await until(lambda: "asked SLOWX = 1" in events(record))
        client.send({"method": "exit"})
        assert await ended(client) == 1
        assert (await client.response(slow))["error"]["code"] == CANCELLED


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("shutdown", None),
        ("initialize", {"capabilities": {}}),
        ("textDocument/inlineCompletion", question(0, 0)),
        ("textDocument/inlineCompletion", {"position": "here"}),
        ("dgemma/tally", None),
        ("dgemma/unheardOf", {}),
    ],
)
async def test_request_after_shutdown_is_invalid(record: Path, method: str, params: Any):
    async with raw_client(record) as client:
        await client.initialize()
        await client.request("shutdown")
        assert (await client.request(method, params))["error"]["code"] == INVALID_REQUEST
        client.open("x = ")
        assert (await client.request("shutdown"))["error"]["code"] == INVALID_REQUEST
        client.send({"method": "exit"})
        assert await ended(client) == 0


@pytest.mark.parametrize("method", ["textDocument/inlineCompletion", "shutdown", "dgemma/tally", "dgemma/unheardOf"])
async def test_request_before_initialize_is_answered(record: Path, method: str):
    async with raw_client(record) as client:
        client.notify("textDocument/didOpen", textDocument={"uri": URI})
        client.open("x = ")
        assert (await client.request(method, question(0, 0)))["error"]["code"] == NOT_INITIALIZED
        assert (await client.initialize())["result"]["capabilities"]
        assert await client.ask(0, 0) == [], "opened before initialize: dropped"
        assert await client.lives()


async def test_initialize_is_answered_once_and_a_second_one_refused(record: Path):
    async with raw_client(record) as client:
        assert "error" in await client.request("initialize", {"capabilities": 7, "workspaceFolders": "none"})
        assert "result" in await client.initialize()
        assert (await client.request("initialize", {"capabilities": {}}))["error"]["code"] == INVALID_REQUEST
        assert await client.lives()


@pytest.mark.parametrize("method", ["initialize", "shutdown", "dgemma/fill", "textDocument/inlineCompletion"])
async def test_request_without_an_id_is_ignored(record: Path, method: str):
    async with raw_client(record) as client:
        await client.initialize(initializationOptions={"pausedLanguages": ["javascript"]})
        client.open("SLOW = 1")
        params = {"initialize": {"capabilities": {}}, "shutdown": None, "dgemma/fill": fill()}
        client.send({"method": method, "params": params.get(method, question(0, 8))})
        assert await client.lives()
        item = {"uri": "file:///w/a.js", "languageId": "javascript", "version": 1, "text": "x = "}
        client.notify("textDocument/didOpen", textDocument=item)
        assert await client.ask(0, 4, uri="file:///w/a.js") == [], "the settings still hold"
        assert not any("SLOW" in event for event in events(record))


async def test_cancelling_shutdown_has_no_effect(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("SLOWX = 1")
        client.begin("textDocument/inlineCompletion", params=question(0, 9))
        shutdown = client.begin("shutdown")
        client.notify("$/cancelRequest", id=shutdown)
        assert (await client.response(shutdown))["result"] is None


async def test_response_with_the_id_of_a_request_in_flight_is_not_its_answer(record: Path):
    async with raw_client(record, answers={"": "2"}) as client:
        await client.initialize()
        client.open("LATER = 1")
        for result in ({"result": None}, {"result": [1]}, {"error": {"code": 1, "message": "no"}}):
            for method, params in {"textDocument/inlineCompletion": question(0, 9), "dgemma/fill": fill()}.items():
                later = client.begin(method, params=params)
                client.send({"id": later} | result)
                answer = (await client.response(later))["result"]
                assert answer if isinstance(answer, list) else answer["candidates"]
            num_edits = len(client.sent("workspace/applyEdit"))
            command = client.begin("workspace/executeCommand", params={"command": "dgemma.fill", "arguments": [fill()]})
            client.send({"id": command} | result)
            await until(lambda num_edits=num_edits: len(client.sent("workspace/applyEdit")) > num_edits)
            assert not client.responses(command)


async def test_second_request_with_an_id_in_flight_is_refused_and_the_first_goes_on(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("LATER = 1")
        for _ in range(2):
            client.send({"id": "same", "method": "textDocument/inlineCompletion", "params": question(0, 9)})
        await until(lambda: len(client.responses("same")) == 2)
        refused, answered = client.responses("same")
        assert refused["error"]["code"] == INVALID_REQUEST
        assert len(answered["result"]) == 1


async def test_request_whose_id_cannot_be_one_is_answered_with_an_error(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        for number, wrong in enumerate([None, True, 1.5, [1], {"id": 1}], 1):
            client.send({"id": wrong, "method": "dgemma/tally", "params": {}})
            await until(lambda number=number: len(client.responses(None)) == number)
            assert client.responses(None)[-1]["error"]["code"] == INVALID_REQUEST
        assert await client.lives()


async def test_body_that_is_no_message_is_answered_with_an_error(record: Path):
    codes = {
        b"{": PARSE_ERROR,
        b"[" * 20_000: PARSE_ERROR,
        b'"\xff"': PARSE_ERROR,
        b"[]": INVALID_REQUEST,
        b'[{"jsonrpc": "2.0", "id": 1, "method": "dgemma/tally"}]': INVALID_REQUEST,
        b"7": INVALID_REQUEST,
        b"{}": INVALID_REQUEST,
        b'{"jsonrpc": "2.0", "id": 1}         []': PARSE_ERROR,
        b'{"jsonrpc": "2.0", "id": "m", "method": 7}': INVALID_REQUEST,
    }
    async with raw_client(record) as client:
        await client.initialize()
        for body in codes:
            client.write(framed(body))
            assert await client.lives()
        assert [one["error"]["code"] for one in client.received if "error" in one] == list(codes.values())


@pytest.mark.parametrize("method", ["initialized", "exit", "textDocument/didClose"])
async def test_notification_that_comes_as_a_request_is_answered_at_once(record: Path, method: str):
    """The editor never answers the server's request for its settings."""
    async with raw_client(record) as client:
        await client.initialize(capabilities=DYNAMIC)
        params = {"textDocument": {"uri": URI}} if method == "textDocument/didClose" else {"id": 7}
        assert "result" in await client.request(method, params)
