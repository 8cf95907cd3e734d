"""The real command over stdio with a failing engine on another machine: one sentence, until an answer comes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from dgemma_engine.protocol.handshake import PROTOCOL
from lsprotocol import types

from tests.engine.remote.scripted_engine import answer, http, scripted_engine
from tests.lsp.editor import Editor, editing
from tests.lsp.waiting import until

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-m", "dgemma_lsp"]
TEXT = "x = 1\ny = |\n"
HALF = http("200 OK", "application/json", "{" + " " * 500, "Connection: close")[:-500]


def refusal(status: str, *more: str) -> bytes:
    body = json.dumps({"error": {"message": "no", "code": int(status[:3])}, "protocol": PROTOCOL})
    return http(status, "application/json", body, *more)


async def key(editor: Editor, number: int) -> list[types.InlineCompletionItem]:
    """Asks in a document of its own, so that no earlier answer serves."""
    uri = f"file:///w/f{number}.py"
    return await editor.ask(editor.open(TEXT, uri=uri), uri=uri, invoked=True)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (None, "broke the connection off before its answer, twice"),
        (HALF, "broke the connection off"),
        (refusal("413 Content Too Large"), "the document is too long for this engine"),
        (refusal("429 Too Many Requests", "Retry-After: 60"), "has too much to do; it can be asked again in"),
        (refusal("500 Internal Server Error"), "the engine failed on this question"),
        (http("503 Service Unavailable", "text/plain", "no replica"), "broke the connection off"),
    ],
)
async def test_fault_stays_in_the_status_until_an_answer_comes(
    tmp_path: Path, reply: bytes | None, sentence: str
) -> None:
    async with scripted_engine() as engine:
        options = {"engine": {"url": f"http://127.0.0.1:{engine.port}"}}
        async with editing(tmp_path / "unused", command=COMMAND, options=options) as editor:
            async with asyncio.timeout(10):
                while not await key(editor, 0):
                    await asyncio.sleep(0.05)
            engine.reply = reply
            assert await key(editor, 1) == []
            await until(lambda: sentence in editor.statuses[-1].message)
            num_before = len(editor.statuses)
            for number in (2, 3):
                assert await key(editor, number) == []
                assert await editor.client.protocol.send_request_async("dgemma/tally", {})
            shown = [status.message for status in editor.statuses[num_before - 1 :]]
            assert all(sentence in message for message in shown), shown
            if b"429" not in (reply or b""):
                engine.reply = answer()
                assert await key(editor, 4)
                await until(lambda: editor.statuses[-1].message == f"engine at 127.0.0.1:{engine.port}")


async def test_status_before_the_first_request_names_the_host(tmp_path: Path) -> None:
    async with scripted_engine() as engine:
        options = {"engine": {"url": f"http://127.0.0.1:{engine.port}"}}
        async with editing(tmp_path / "unused", command=COMMAND, options=options) as editor:
            await until(lambda: bool(editor.statuses))
            assert editor.statuses[0].message == f"the first request connects to 127.0.0.1:{engine.port}"
