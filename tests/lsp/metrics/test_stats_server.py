"""Counts made over stdio, and the output of `dgemma-lsp stats`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import Editor, editing

pytestmark = pytest.mark.e2e


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def stats(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "dgemma_lsp", "stats", *arguments]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    return result.returncode, result.stdout + result.stderr


async def ask_and_insert(editor: Editor) -> types.InlineCompletionItem:
    position = editor.open("x = |\n")
    (item,) = await editor.ask(position)
    editor.edit(position, position, "10")
    return item


async def test_accepting_by_command_is_counted_and_can_be_forgotten(tmp_path: Path, state: Path):
    async with editing(tmp_path / "record", answers={"x = ": "10"}, commands=True) as editor:
        assert await editor.ask(editor.open("nothing|")) == []
        item = await ask_and_insert(editor)
        assert item.command is not None
        params = types.ExecuteCommandParams(command=item.command.command, arguments=item.command.arguments)
        assert await editor.client.workspace_execute_command_async(params) is None
    code, out = stats("--json")
    figures = json.loads(out)
    assert code == 0
    assert (figures["requests"], figures["shown"], figures["accepted"]) == (2, 1, 1)
    assert figures["characters_accepted"] == 2
    assert figures["answered_without_engine_share"] == 0.0
    assert (figures["steps"], figures["wasted_steps"]) == (6, 3)
    assert list(figures["ms"]) == ["total", "server", "start", "wait", "context", "engine"]
    assert "accepted                1 (100 %)" in stats()[1]
    assert stats("--delete") == (0, f"{state}/dgemma-lsp/stats.json: removed\n")
    assert "nothing to delete" in stats("--delete")[1]
    assert stats() == (0, "Nothing was counted yet.\n")


async def test_figures_are_sent_to_the_editor(tmp_path: Path, state: Path):
    async with editing(tmp_path / "record", answers={"x = ": "10"}) as editor:
        await ask_and_insert(editor)
        told = await editor.client.protocol.send_request_async("dgemma/stats", None)
        assert (told.requests, told.shown) == (1, 1)
        (state / "dgemma-lsp/stats.json").write_text("{")
        with pytest.raises(JsonRpcException, match="remove it with: dgemma-lsp stats --delete"):
            await editor.client.protocol.send_request_async("dgemma/stats", None)
    (state / "dgemma-lsp/stats.json").unlink()
    assert json.loads(stats("--json")[1]).keys() == told._asdict().keys()


async def test_client_without_commands_gets_none(tmp_path: Path, state: Path):
    async with editing(tmp_path / "record", answers={"x = ": "10"}) as editor:
        item = await ask_and_insert(editor)
        assert item.command is None


async def test_switched_off_counts_nothing_and_sends_no_command(tmp_path: Path, state: Path):
    options: Any = {"stats": False}
    async with editing(tmp_path / "record", answers={"x = ": "10"}, options=options, commands=True) as editor:
        item = await ask_and_insert(editor)
        assert item.command is None
    assert stats()[1] == "Nothing was counted yet.\n"


def test_unreadable_counts_say_what_to_do(state: Path):
    (state / "dgemma-lsp").mkdir(parents=True)
    (state / "dgemma-lsp/stats.json").write_text("{")
    code, out = stats()
    assert code == 1
    assert out.endswith("remove it with: dgemma-lsp stats --delete\n")
