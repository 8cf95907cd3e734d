"""The real command over stdio and a real socket: what it writes to its log, to the disk and to the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.ipc.endpoint import EngineLocation
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import Editor, editing
from tests.lsp.engine_process import serving

pytestmark = pytest.mark.e2e

CANARY = "canary_7f3a"
SERVER = Path(__file__).with_name("audited_server.py")


async def test_no_text_in_the_log_or_on_disk_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runtime, state, audit, log = (tmp_path / name for name in ("rt", "state", "audit.txt", "log.txt"))
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    location = EngineLocation.locate(os.environ)
    async with (
        serving(location, answers={"x = ": f"{CANARY}(1)"}) as engine,
        editing(
            tmp_path / "unused",
            command=[sys.executable, str(SERVER), str(audit), str(log)],
            options={"logLevel": "info", CANARY: CANARY, "seed": CANARY},
            commands=True,
        ) as editor,
    ):
        await work(editor)
    assert len(engine.contexts) >= 2, "the engine was asked over its socket"

    logged = log.read_text()
    assert "ignored an edit" in logged, "the log works"
    assert CANARY not in logged

    events = audit.read_text().splitlines()
    assert f"socket.connect {location.socket}" in events, "the audit works"
    families = {line.split()[1] for line in events if line.startswith("socket.__new__")}
    assert families == {"1"}, "Unix sockets only"
    connecting = {line for line in events if line.startswith("socket.") and "__new__" not in line}
    assert connecting == {f"socket.connect {location.socket}"}
    assert not [line for line in events if line.startswith(("subprocess", "os.exec", "os.posix_spawn", "os.fork"))]

    written = {line.removeprefix("write ") for line in events if line.startswith("write ")}
    ours = state / "dgemma-lsp"
    assert written - {"/dev/null"} == {str(ours / name) for name in ("stats.lock", "stats.new")}
    assert [path.name for path in sorted(ours.iterdir())] == ["stats.json", "stats.lock"]
    assert CANARY not in (ours / "stats.json").read_text()
    assert '"accepted": 1' in (ours / "stats.json").read_text(), "the counts work"


async def work(editor: Editor) -> None:
    """Sends text on every path: documents, edits, answers, commands, settings, faults."""
    start = types.Position(line=0, character=0)
    editor.edit(start, start, CANARY)
    editor.open(f"{CANARY} = |", uri="file:///w/.env")
    assert await editor.ask(start, uri="file:///w/.env") == []

    position = editor.open(f"import {CANARY}\nx = |\n")
    (item,) = await until_shown(editor, position)
    assert item.command is not None
    editor.edit(position, position, f"{CANARY}(1)")
    await run(editor, item.command.command, item.command.arguments)

    for name, arguments in ((item.command.command, [CANARY, {}]), (item.command.command, None), (CANARY, [CANARY])):
        with pytest.raises(JsonRpcException):
            await run(editor, name, arguments)
    assert await editor.ask(editor.open(f"FAULT {CANARY}|")) == []
    assert await editor.ask(editor.open(f"DIE {CANARY}|")) == []
    settings: Any = {"dgemma": {CANARY: CANARY, "logLevel": CANARY}}
    editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
    editor.client.protocol.notify(CANARY, {"text": CANARY})
    editor.client.protocol._send_data({"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"x": CANARY}})
    await editor.ask(editor.open(f"{CANARY}|"))


async def until_shown(editor: Editor, position: types.Position) -> list[types.InlineCompletionItem]:
    for _ in range(50):
        if items := await editor.ask(position):
            return items
    raise AssertionError("the engine never answered")


async def run(editor: Editor, command: str, arguments: Any) -> None:
    params = types.ExecuteCommandParams(command=command, arguments=arguments)
    await editor.client.workspace_execute_command_async(params)
