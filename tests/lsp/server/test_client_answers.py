"""Answers of an editor to the server's own requests: whatever they are, the editor's requests are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lsp.raw_client import RawClient, raw_client
from tests.lsp.waiting import until

URI = "file:///w/a.py"
SPAN = {"start": {"line": 0, "character": 8}, "end": {"line": 0, "character": 9}}
ODD: list[dict[str, Any]] = [
    {"result": None},
    {},
    {"result": True},
    {"result": []},
    {"result": "abc"},
    {"result": 7},
    {"result": [{}, {}]},
    {"result": {"applied": None}},
    {"result": {"applied": "yes"}},
    {"error": {"code": -32601, "message": "no such method"}},
    {"error": {"message": 7}},
    {"error": "no"},
    {"error": []},
    {"result": None, "error": {"code": 1, "message": ""}},
]
CAPABILITIES = {
    "window": {"workDoneProgress": True},
    "workspace": {
        "configuration": True,
        "didChangeConfiguration": {"dynamicRegistration": True},
        "didChangeWatchedFiles": {"dynamicRegistration": True},
    },
}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


async def fill(client: RawClient) -> Any:
    argument = {"textDocument": {"uri": URI, "version": 1}, "range": SPAN, "kind": "selection"}
    return await client.request("workspace/executeCommand", {"command": "dgemma.fill", "arguments": [argument]})


async def test_command_is_answered_whatever_the_editor_answers_to_its_edit(record: Path):
    async with raw_client(record, answers={"": "2"}) as client:
        await client.initialize()
        client.open("value = 1")
        for number, reply in enumerate(ODD, 1):
            client.replies["workspace/applyEdit"] = reply
            assert (await fill(client))["result"] is None, reply
            told = [one["params"]["message"] for one in client.sent("window/showMessage")]
            assert len(told) == number, reply
            assert "did not apply" in told[-1]
        client.replies["workspace/applyEdit"] = {"result": {"applied": True}, "error": None}
        assert (await fill(client))["result"] is None
        assert len(client.sent("window/showMessage")) == len(ODD)


async def test_command_runs_without_a_progress_bar_where_the_editor_makes_none(record: Path):
    async with raw_client(record, answers={"": "2"}) as client:
        client.replies["workspace/applyEdit"] = {"result": {"applied": True}}
        await client.initialize(capabilities=CAPABILITIES)
        client.open("value = 1")
        assert (await fill(client))["result"] is None
        for reply in ODD:
            client.replies["window/workDoneProgress/create"] = reply
            assert (await fill(client))["result"] is None, reply


@pytest.mark.parametrize("reply", ODD)
async def test_settings_are_pulled_again_after_an_answer_without_any(record: Path, reply: dict[str, Any]):
    async with raw_client(record) as client:
        client.replies = dict.fromkeys(("workspace/configuration", "client/registerCapability"), reply)
        await client.initialize(capabilities=CAPABILITIES)
        await until(lambda: len(client.sent("workspace/configuration")) == 1)
        assert await client.lives()
        client.replies["workspace/configuration"] = {"result": [{"enabled": False}]}
        client.notify("workspace/didChangeConfiguration", settings=None)
        await until(lambda: any("enabled" in one["params"]["message"] for one in client.sent("dgemma/status")))


async def test_answer_that_comes_after_shutdown_or_twice_is_no_fault(record: Path):
    async with raw_client(record) as client:
        await client.initialize(capabilities=CAPABILITIES)
        await until(lambda: bool(client.sent("client/registerCapability")))
        assert (await client.request("shutdown"))["result"] is None
        for one in client.sent("client/registerCapability"):
            client.send({"id": one["id"], "result": None})
            client.send({"id": one["id"], "error": {"code": 1, "message": "no"}})
        for wrong in (None, True, [1], {"id": 1}, "never sent", 4_711):
            client.send({"id": wrong, "result": None})
        assert (await client.request("dgemma/tally"))["error"]["code"] == -32600
