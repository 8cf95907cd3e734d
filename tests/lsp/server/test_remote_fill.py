"""Fills by the real command over stdio with `engine.url`: candidates, drafts as progress, cancellation, faults."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lsprotocol import types

from tests.engine.http_api.running_server import AnsweringEngine, RunningServer, running_server, until
from tests.engine.remote.scripted_engine import scripted_engine
from tests.lsp.editor import editing
from tests.lsp.fill_editor import FillEditor

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-m", "dgemma_lsp"]
MARKED = "def area(width, height):\n    |pass|\n\nprint(area(1, 2))\n"


@asynccontextmanager
async def filling(tmp_path: Path, url: str) -> AsyncIterator[FillEditor]:
    async with editing(tmp_path / "unused", command=COMMAND, options={"engine": {"url": url}}) as editor:
        yield FillEditor(editor)


@asynccontextmanager
async def filling_over(tmp_path: Path, engine: AnsweringEngine) -> AsyncIterator[tuple[FillEditor, RunningServer]]:
    async with running_server(engine) as server, filling(tmp_path, server.url) as editor:
        yield editor, server


async def test_selection_is_filled_from_elsewhere(tmp_path: Path) -> None:
    engine = AnsweringEngine("return width * height", "return height * width")
    async with filling_over(tmp_path, engine) as (editor, server):
        result = await editor.fill(editor.open(MARKED))
        assert [candidate.newText for candidate in result.candidates] == list(engine.texts), result.message
        assert editor.applied(result) == "def area(width, height):\n    return width * height\n\nprint(area(1, 2))\n"
        (asked,) = engine.contexts
        assert asked.prefix.endswith("def area(width, height):\n    ") and asked.suffix.startswith("\n\nprint")
        assert 10_000 < asked.deadline_ms <= 20_000, "the deadline of fills, less what the network takes"
        assert editor.editor.statuses[-1].host == f"127.0.0.1:{server.port}"


async def test_cancelled_fill_is_cancelled_at_the_engine(tmp_path: Path) -> None:
    engine = AnsweringEngine()
    async with filling_over(tmp_path, engine) as (editor, _):
        asking = editor.send(editor.open("x = SLOW |pass|\n"), msg_id="fill")
        await until(lambda: bool(engine.contexts))
        editor.editor.client.protocol.notify("$/cancelRequest", types.CancelParams(id="fill"))
        await until(lambda: engine.num_cancelled == 1)
        await asyncio.gather(asyncio.wrap_future(asking), return_exceptions=True)
        assert (await editor.fill(editor.open(MARKED))).candidates, "the session goes on"


async def test_fill_that_fails_gives_the_reason_and_the_next_one_clears_it(tmp_path: Path) -> None:
    async with scripted_engine() as engine, filling(tmp_path, f"http://127.0.0.1:{engine.port}") as editor:
        span, reply = editor.open(MARKED), engine.reply
        engine.reply = None
        result = await editor.fill(span)
        assert result.candidates == [] and "broke the connection off before its answer, twice" in result.message
        await until(lambda: "broke the connection off" in editor.editor.statuses[-1].message)
        engine.reply = reply
        assert (await editor.fill(span)).candidates
        await until(lambda: editor.editor.statuses[-1].message == f"engine at 127.0.0.1:{engine.port}")
