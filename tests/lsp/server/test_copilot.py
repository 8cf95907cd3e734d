"""Notifications of plugins for Copilot's language server: counted, or ignored where they cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lsp.editor import URI
from tests.lsp.raw_client import RawClient, question, raw_client

RUNS_COMMANDS = {"workspace": {"executeCommand": {}}}


async def offered(client: RawClient) -> dict[str, Any]:
    await client.initialize(capabilities=RUNS_COMMANDS)
    client.open("x = ")
    (item,) = (await client.request("textDocument/inlineCompletion", question(0, 4)))["result"]
    return item


async def figures(client: RawClient) -> dict[str, Any]:
    return (await client.request("dgemma/stats"))["result"]


async def test_shown_and_partly_accepted_are_counted(tmp_path: Path):
    async with raw_client(tmp_path / "record", answers={"x = ": "ab"}) as client:
        item = await offered(client)
        assert item["insertText"] == "x = ab"
        client.notify("textDocument/didFocus", textDocument={"uri": URI})
        client.notify("textDocument/didShowCompletion", item=item)
        client.notify("textDocument/didPartiallyAcceptCompletion", item=item, acceptedLength=5)
        client.notify("textDocument/didClose", textDocument={"uri": URI})
        found = await figures(client)
    assert (found["displayed"], found["partly_accepted"], found["characters_accepted"]) == (1, 1, 1)


@pytest.mark.parametrize("method", ["textDocument/didShowCompletion", "textDocument/didPartiallyAcceptCompletion"])
@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"item": None, "acceptedLength": 5},
        {"item": {"command": "dgemma.accepted"}, "acceptedLength": 5},
        {"item": {"command": {"command": "other", "arguments": [1]}}, "acceptedLength": 5},
        {"item": {"command": {"command": "dgemma.accepted", "arguments": "1"}}, "acceptedLength": 5},
        {"item": {"command": {"command": "dgemma.accepted", "arguments": [None]}}, "acceptedLength": 5},
        {"item": {"command": {"command": "dgemma.accepted", "arguments": [77]}}, "acceptedLength": "5"},
    ],
    ids=json.dumps,
)
async def test_notification_that_cannot_be_read_is_ignored(
    tmp_path: Path, method: str, params: Any, caplog: pytest.LogCaptureFixture
):
    async with raw_client(tmp_path / "record", answers={"x = ": "ab"}) as client:
        await offered(client)
        client.send({"method": method} | ({} if params is None else {"params": params}))
        found = await figures(client)
    assert (found["shown"], found["displayed"], found["partly_accepted"]) == (1, 0, 0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_inline_edit_request_is_answered_without_edits(tmp_path: Path):
    async with raw_client(tmp_path / "record") as client:
        await client.initialize()
        client.open("x = ")
        params = {"textDocument": {"uri": URI, "version": 1}, "position": {"line": 0, "character": 4}}
        assert (await client.request("textDocument/copilotInlineEdit", params))["result"] == {"edits": []}
