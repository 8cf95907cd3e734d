"""Commands that an editor runs with wrong arguments, cancels, or leaves pending at the end of a session."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from tests.lsp.editor import URI
from tests.lsp.raw_client import events, raw_client
from tests.lsp.waiting import until

INVALID_PARAMS, CANCELLED = -32602, -32800


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


def loop_errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns what the event loop has logged of exceptions that were never retrieved."""
    gc.collect()
    return [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def fill() -> dict[str, Any]:
    span = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 4}}
    return {"textDocument": {"uri": URI, "version": 1}, "range": span, "kind": "selection"}


@pytest.mark.parametrize("command", ["dgemma.accepted", "dgemma.fill"])
@pytest.mark.parametrize("params", [{}, {"arguments": None}, {"arguments": []}, {"arguments": [1, 2]}])
async def test_command_with_a_wrong_number_of_arguments_is_refused(
    record: Path, command: str, params: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    async with raw_client(record) as client:
        await client.initialize()
        response = await client.request("workspace/executeCommand", {"command": command} | params)
        assert response["error"]["code"] == INVALID_PARAMS
        assert "%s" not in caplog.text


async def test_pull_of_the_settings_that_shutdown_ends_leaves_no_error(record: Path, caplog: pytest.LogCaptureFixture):
    async with raw_client(record) as client:
        await client.initialize(capabilities={"workspace": {"configuration": True}})
        await until(lambda: bool(client.sent("workspace/configuration")))
        assert (await client.request("shutdown"))["result"] is None
    assert loop_errors(caplog) == []


async def test_command_that_waits_for_the_engine_is_answered_when_the_input_ends(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("SLOW = 1")
        asked = client.begin("workspace/executeCommand", params={"command": "dgemma.fill", "arguments": [fill()]})
        await until(lambda: any("SLOW" in event or "asked" in event for event in events(record)))
        client.send({"method": "exit"})
        assert (await client.response(asked))["error"]["code"] == CANCELLED


@pytest.mark.parametrize("msg_id", [0, "", 50])
async def test_cancelled_fill_is_not_written_whatever_its_id(record: Path, msg_id: int | str):
    async with raw_client(record, answers={"": "2"}) as client:
        client.replies["workspace/applyEdit"] = {"result": {"applied": True}}
        await client.initialize()
        client.open("LATER x = 1")
        span = {"start": {"line": 0, "character": 6}, "end": {"line": 0, "character": 7}}
        command: dict[str, Any] = {"command": "dgemma.fill", "arguments": [fill() | {"range": span}]}
        client.send({"id": msg_id, "method": "workspace/executeCommand", "params": command})
        await until(lambda: any("asked" in event for event in events(record)))
        client.notify("$/cancelRequest", id=msg_id)
        await until(lambda: any(one.get("id") == msg_id and "error" in one for one in client.received))
        # A fill of another document takes as long: the first, were it still running, would be written before.
        client.open("LATER x = 1", uri="file:///w/other.py")
        other = command["arguments"][0] | {"textDocument": {"uri": "file:///w/other.py", "version": 1}}
        again = {"command": "dgemma.fill", "arguments": [other]}
        assert (await client.request("workspace/executeCommand", again)).get("error") is None
        assert len(client.sent("workspace/applyEdit")) == 1


async def test_command_that_is_cancelled_before_it_fails_leaves_no_error(
    record: Path, caplog: pytest.LogCaptureFixture
):
    async with raw_client(record) as client:
        await client.initialize()
        asked = client.begin("workspace/executeCommand", params={"command": "dgemma.fill", "arguments": [{}]})
        client.notify("$/cancelRequest", id=asked)
        assert "error" in await client.response(asked)
        assert await client.lives()
    assert loop_errors(caplog) == []
