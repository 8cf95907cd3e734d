"""Fills by a real client, the real server, the real daemon and the embedded model."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from pathlib import Path

import pytest
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import editing
from tests.lsp.fill_editor import FillEditor
from tests.lsp.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("runtime")]

SERVER = [sys.executable, "-m", "dgemma_lsp"]
SHAPES = """class Shape:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        return self.width * self.height

    def perimeter(self):
|        return 0
|
    def scaled(self, factor):
        \"\"\"Returns a shape so many times as large.\"\"\"
        return Shape(self.width * factor, self.height * factor)


{name} = """


async def ready(editor: FillEditor, span: types.Range) -> None:
    """Asks until the engine has loaded."""
    while "loading" in (await editor.fill(span)).message:
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
async def test_every_candidate_parses_and_leaves_the_rest_of_the_file(tmp_path: Path, line_end: str) -> None:
    marked = SHAPES.format(name="x") + "1\n"
    async with editing(tmp_path / "unused.txt", command=SERVER) as inner:
        editor = FillEditor(inner)
        span = editor.open(marked.replace("\n", line_end))
        await ready(editor, span)
        result = await editor.fill(span)
        assert result.message == ""
        before, _, after = editor.text.partition("return 0")
        for index in range(len(result.candidates)):
            text = editor.applied(result, index)
            ast.parse(text)
            assert text.startswith(before)
            assert text.endswith(after)
            assert text.count("\n") == text.count(line_end)


async def test_ghost_text_is_served_between_the_steps_of_a_fill(tmp_path: Path) -> None:
    async with editing(tmp_path / "unused.txt", command=SERVER) as inner:
        editor = FillEditor(inner)
        span = editor.open(SHAPES.format(name="y"))
        await ready(editor, span)
        # On a busy machine ghost text may lose the race now and then; queued until the fill ends, it would lose each.
        orders: list[list[str]] = []
        while len(orders) < 5 and ["ghost text", "fill"] not in orders:
            orders.append(await order_of_answers(editor, span, token=f"t{len(orders)}"))
        assert ["ghost text", "fill"] in orders


async def order_of_answers(editor: FillEditor, span: types.Range, token: str) -> list[str]:
    """Asks for a fill, and for ghost text once the fill has begun; returns which was answered first, and which last."""
    editor.editor.client.progress_reports[token] = reports = []
    answered: list[str] = []

    async def fill() -> None:
        await editor.fill(span, workDoneToken=token)
        answered.append("fill")

    filling = asyncio.create_task(fill())
    await until(lambda: len(reports) > 1 or filling.done(), timeout_s=30)
    await editor.editor.ask(editor.editor.position(editor.text, len(editor.text)), invoked=True)
    answered.append("ghost text")
    await filling
    return answered


async def test_cancelled_fill_makes_at_most_one_further_step(tmp_path: Path) -> None:
    async with editing(tmp_path / "unused.txt", command=SERVER) as inner:
        editor = FillEditor(inner)
        span = editor.open(SHAPES.format(name="z"))
        await ready(editor, span)
        inner.client.progress_reports["t"] = reports = []
        answer = editor.send(span, workDoneToken="t", msg_id="f")
        await until(lambda: len(reports) > 1, timeout_s=30)
        inner.client.cancel_request(types.CancelParams(id="f"))
        with pytest.raises(JsonRpcException):
            await asyncio.wait_for(asyncio.wrap_future(answer), 30)
        location = EngineLocation.locate(os.environ)
        async with await EngineClient.attach(location) as client:
            before = (await client.status()).denoising_steps
            await asyncio.sleep(0.3)
            assert (await client.status()).denoising_steps <= before + 1
