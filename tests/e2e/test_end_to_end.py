"""A real client, the real language server over stdio, the real daemon, the embedded model."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from dgemma_engine.infill.engine import Engine
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.protocol.status_messages import EngineState
from dgemma_engine.scheduling.timing import Cancel
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Request, Trigger, build_completions
from tests.e2e.conftest import engines
from tests.lsp.cursor import split_cursor
from tests.lsp.editor import URI, Editor, editing, inserted
from tests.lsp.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("runtime")]

SERVER = [sys.executable, "-m", "dgemma_lsp"]
REQUEST_CANCELLED = -32800
LONG_FILE = "".join(f"value_{i} = {i}\n" for i in range(20_000))


def session(tmp_path: Path, **options: Any) -> Any:
    return editing(tmp_path / "unused.txt", command=SERVER, **options)


async def ready(editor: Editor, position: types.Position) -> None:
    """Asks until the engine has loaded: until then every answer is empty."""
    await editor.ask(position)
    await until(lambda: "ready" in editor.kinds(), timeout_s=60)


@pytest.fixture(scope="module")
def oracle(embedded: Path) -> Engine:
    """The same model in this process."""
    return Engine.load(embedded, device="cpu", report=lambda _percent, _message: None)


def expected_text(oracle: Engine, marked: str) -> str:
    """Returns the document with the answer of an engine in this process: no server, no socket, no daemon."""
    text, offset = split_cursor(marked)
    request = Request(
        uri=URI,
        version=1,
        text=text,
        offset=offset,
        language="python",
        trigger=Trigger.AUTOMATIC,
        deadline_ms=60_000,
    )
    limits = ContextLimits(max_middle_tokens=64, seed=0)
    cancel = Cancel(deadline_s=time.monotonic() + 60, clock=time.monotonic)
    for completion in build_completions(request, oracle.infill(build_context(request, limits), cancel)):
        return text[: completion.start] + completion.text + text[completion.end :]
    return text


DOCUMENTS = {
    "end of a line": "import os\n\nfor name in |\n    print(name)\n",
    "inside brackets": "def area(width, height):\n    return width * height\n\nprint(area(|))\n",
    "empty body": "class Point:\n    def __init__(self, x, y):\n        |\n\n    def norm(self):\n        pass\n",
    "CRLF": "add('--one', type=int, default=1)\r\nadd('--two', type=int, |)\r\n",
    "astral and combining": "x = {'😋e\u0301': 1}\nprint(x['😋e\u0301'])\nx['😋e\u0301'] = 2\nprint(|)\n",
    "attribute": "self.width = width\nself.height = height\n\nother.width = width\nother.|\n",
    "empty file": "|",
    "20,000 lines": LONG_FILE + "total = |\n" + LONG_FILE,
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("encoding", list(PositionEncoding))
async def test_answer_equals_that_of_the_same_model_in_this_process(
    name: str, encoding: PositionEncoding, oracle: Engine, tmp_path: Path
) -> None:
    marked = DOCUMENTS[name]
    text, _offset = split_cursor(marked)
    async with session(tmp_path, encoding=encoding, options={"deadlineMs": 60_000}) as editor:
        position = editor.open(marked)
        await ready(editor, position)
        items = await editor.ask(position)
        shown = inserted(text, items, encoding) if items else text
    assert shown == expected_text(oracle, marked)


async def test_model_completes_some_documents(oracle: Engine) -> None:
    """If every answer above were empty, comparing them would prove nothing."""
    changed = [marked for marked in DOCUMENTS.values() if expected_text(oracle, marked) != marked.replace("|", "")]
    assert len(changed) >= 3


async def test_position_past_the_end_is_answered(tmp_path: Path) -> None:
    async with session(tmp_path) as editor:
        await ready(editor, editor.open("a = 1\nb = |"))
        for place in (types.Position(line=1, character=500), types.Position(line=77, character=3)):
            for item in await editor.ask(place):
                assert item.range is not None
                assert item.range.end == types.Position(line=1, character=4)


async def steps(client: EngineClient) -> int:
    return (await client.status()).denoising_steps


async def denoising(client: EngineClient) -> None:
    """Waits until the engine is in the middle of a request."""
    before = await steps(client)
    async with asyncio.timeout(30):
        while await steps(client) < before + 2:
            await asyncio.sleep(0.02)


async def asked(editor: Editor, position: types.Position, watcher: EngineClient) -> asyncio.Task[Any]:
    """Asks until the engine works on the request: one that waited too long for the connection gets an empty answer."""
    while True:
        task = asyncio.create_task(editor.ask(position))
        await denoising(watcher)
        if not task.done():
            return task


async def idle(client: EngineClient) -> None:
    """Waits until the engine has nothing to do, and checks that its step counter stands still."""
    async with asyncio.timeout(30):
        while (await client.status()).state is not EngineState.READY:
            await asyncio.sleep(0.02)
    counted = await steps(client)
    await asyncio.sleep(0.3)
    assert await steps(client) == counted


def endless_options(endless: Path) -> dict[str, Any]:
    return {"engine": {"model": str(endless)}, "deadlineMs": 60_000}


async def test_cancel_stops_the_denoising(tmp_path: Path, endless: Path, watcher: EngineClient) -> None:
    async with session(tmp_path, options=endless_options(endless)) as editor:
        position = editor.open("x = |")
        params = types.InlineCompletionParams(
            text_document=types.TextDocumentIdentifier(uri=URI),
            position=position,
            context=types.InlineCompletionContext(trigger_kind=types.InlineCompletionTriggerKind.Automatic),
        )
        for number in count():
            future = editor.client.protocol.send_request("textDocument/inlineCompletion", params, msg_id=f"q{number}")
            await denoising(watcher)
            # As in `asked`.
            if not future.done():
                break
        editor.client.cancel_request(types.CancelParams(id=f"q{number}"))
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(asyncio.wrap_future(future), 10)
        assert caught.value.code == REQUEST_CANCELLED
        await idle(watcher)


async def test_newer_request_of_a_document_cancels_the_older(
    tmp_path: Path, endless: Path, watcher: EngineClient
) -> None:
    async with session(tmp_path, options=endless_options(endless)) as editor:
        first = await asked(editor, editor.open("x = |\ny = \n"), watcher)
        second = asyncio.create_task(editor.ask(types.Position(line=1, character=4)))
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(first, 10)
        assert caught.value.code == REQUEST_CANCELLED
        await denoising(watcher)
    assert isinstance(await asyncio.wait_for(second, 10), list)
    await idle(watcher)


async def test_edit_that_contradicts_a_request_cancels_it(tmp_path: Path, endless: Path, watcher: EngineClient) -> None:
    options = endless_options(endless) | {"deadlineMs": 1_000}
    async with session(tmp_path, options=options) as editor:
        task = await asked(editor, editor.open("x = |"), watcher)
        editor.edit(types.Position(line=0, character=0), types.Position(line=0, character=1), "yy")
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(task, 10)
        assert caught.value.code == REQUEST_CANCELLED
        await idle(watcher)


async def test_request_ends_with_its_editor(tmp_path: Path, endless: Path, watcher: EngineClient) -> None:
    async with session(tmp_path, options=endless_options(endless)) as editor:
        task = await asked(editor, editor.open("x = |"), watcher)
    assert isinstance(await asyncio.wait_for(task, 10), list), "answered before the server ends"
    await idle(watcher)


async def test_two_editors_share_one_engine(tmp_path: Path, runtime: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with session(tmp_path / "a") as first, session(tmp_path / "b") as second:
        for editor in (first, second):
            await ready(editor, editor.open("for name in |\n"))
        location = EngineLocation.locate(os.environ)
        async with await EngineClient.attach(location) as client:
            status = await client.status()
        assert status.clients >= 3
        serving = [process for process in engines(runtime) if "--model tiny" in " ".join(process.cmdline())]
        assert [process.pid for process in serving] == [status.pid]
        servers = [child for child in psutil.Process().children() if "dgemma_lsp" in child.cmdline()]
        assert len(servers) == 2
        for server in servers:
            assert not [each.path for each in server.memory_maps() if "torch" in each.path]
            assert server.memory_info().rss < status.memory_bytes / 2


async def test_engine_killed_in_mid_request_is_started_again_by_the_next(
    tmp_path: Path, endless: Path, watcher: EngineClient
) -> None:
    async with session(tmp_path, options=endless_options(endless)) as editor:
        position = editor.open("x = |")
        task = await asked(editor, position, watcher)
        killed = (await watcher.status()).pid
        psutil.Process(killed).kill()
        assert await asyncio.wait_for(task, 10) == []
        await until(lambda: "error" in editor.kinds())
        num_before = len(editor.kinds())
        # The next request starts another engine and waits for it, without an action of the user. On a slow machine the
        # start takes longer than that request waits; then a later request is answered.
        again = asyncio.create_task(editor.ask(position))
        await until(lambda: {"ready", "busy"} & {*editor.kinds()[num_before:]}, timeout_s=120)
        async with await EngineClient.attach(EngineLocation.locate(os.environ, model=str(endless))) as other:
            assert (await other.status()).pid != killed
            async with asyncio.timeout(60):
                while await steps(other) < 2:
                    if again.done():
                        again = asyncio.create_task(editor.ask(position))
                    await asyncio.sleep(0.02)
    assert isinstance(await asyncio.wait_for(again, 10), list)


async def test_wrong_settings_are_reported_and_right_ones_take_effect_later(tmp_path: Path) -> None:
    options = {"engine": {"model": str(tmp_path / "nowhere"), "modle": "x"}, "deadlineMs": "soon"}
    async with session(tmp_path, options=options) as editor:
        position = editor.open("for name in |\n")
        assert await editor.ask(position) == []
        await until(lambda: "error" in editor.kinds(), timeout_s=30)
        assert "nowhere" in next(status.message for status in editor.statuses if status.kind == "error")
        messages = " ".join(message.message for message in editor.client.messages)
        assert "dgemma.engine.modle" in messages
        assert "engine.model" in messages
        assert "deadlineMs" in messages
        editor.client.workspace_did_change_configuration(
            types.DidChangeConfigurationParams(settings={"dgemma": {"engine": {"model": "tiny"}}})
        )
        await editor.ask(position)
        await until(lambda: editor.kinds()[-1] == "ready", timeout_s=60)


async def test_server_over_tcp_ends_with_its_session(runtime: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        *SERVER, "--tcp", f"127.0.0.1:{port}", env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    client = LanguageClient("test", "1")
    client.feature("dgemma/status")(lambda _status: None)
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    await client.start_tcp("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            result = await client.initialize_async(types.InitializeParams(capabilities=types.ClientCapabilities()))
            assert result.capabilities.inline_completion_provider is not None
            await client.shutdown_async(None)
            client.exit(None)
            assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


async def test_complete_prints_one_object(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("name = '😋'\nprint(\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *SERVER, "complete", f"{file}:2:7", "--json", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    answer = json.loads(output)
    assert process.returncode == 0
    assert set(answer) == {
        "text", "replaces", "unlikely", "finish", "score", "steps", "model", "device", "adapter", "timings_ms",
    }  # fmt: skip
    assert answer["model"] == "tiny"
    assert answer["steps"] > 0
