"""A language server that the selected text controls: for what a real model does too fast, too seldom or not at all.

`python stub_server.py [--old] [--dies]`; `--old` leaves out what an old server does not have, `--dies` ends when it has
started.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Generator
from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, lsp_method


class Protocol(LanguageServerProtocol):
    """Announces the project's own requests, unless the server is an old one."""

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        """Adds to the answer of pygls."""
        result = yield from super().lsp_initialize(params)
        if "--old" not in sys.argv:
            result.capabilities.experimental = {"dgemma": {"version": "0.0.9", "protocol": 1}}
        return result


server = LanguageServer("dgemma-lsp", "0.0.9", protocol_cls=Protocol)


@server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
@server.thread()  # a handler in a thread cannot be cancelled
def _inline_completion(params: types.InlineCompletionParams) -> list[types.InlineCompletionItem]:
    document = server.workspace.get_text_document(params.text_document.uri)
    typed = document.lines[params.position.line][: params.position.character] if document.lines else ""
    if typed == "late(":
        time.sleep(2)
    texts = {"late(": ["stale"], "three = ": ["first", "second", "third"]}.get(typed, ["from_the_stub"])
    return [types.InlineCompletionItem(insert_text=text) for text in texts]


@server.feature("dgemma/fill")
async def _fill(params: Any) -> dict[str, Any]:
    document = server.workspace.get_text_document(params.textDocument.uri)
    start, end = params.range.start, params.range.end
    line = document.lines[start.line] if start.line < len(document.lines) else ""
    selected = line[start.character : end.character] if start.line == end.line else "several lines"
    token = params.workDoneToken
    begin = types.WorkDoneProgressBegin(title="Filling", percentage=0, cancellable=True)
    server.work_done_progress.begin(token, begin)
    if selected.startswith("say "):
        kind = selected.removeprefix("say ")
        reason = f"the stub was told to say {kind}"
        server.protocol.notify("dgemma/status", {"kind": kind, "message": reason, "percent": 40, "reason": reason})
    if selected in {"slow", "endless"}:
        for step in range(10_000):
            if selected == "slow" and document.version != params.textDocument.version:
                break
            report = types.WorkDoneProgressReport(message=f"step {step}", percentage=min(step * 5, 95))
            server.work_done_progress.report(token, report)
            await asyncio.sleep(0.1)
    if selected == "fails":
        raise RuntimeError("the stub was told to fail")
    offered = {"several": ["first", "second\nof two lines", "third"], "nothing": [], "": []}.get(selected, ["filled"])
    place = {"line": start.line, "character": start.character}, {"line": end.line, "character": end.character}
    return {
        "uri": params.textDocument.uri,
        "version": params.textDocument.version,
        "range": {"start": place[0], "end": place[1]},
        "candidates": [
            {"newText": text, "label": text.split("\n")[0], "score": 0.9 - 0.3 * index}
            for index, text in enumerate(offered)
        ],
        "message": "" if offered else "nothing is selected; select the text to replace",
    }


@server.feature("dgemma/denoise")
async def _denoise(params: Any) -> dict[str, Any]:
    texts, steps = ("width", ", ", "height", "):\n    ", "return"), 6
    for step in range(steps):
        spans = [
            {"text": text, "confidence": min(0.15 * step + 0.12 * index, 1.0), "settled": step > index + 1}
            for index, text in enumerate(texts)
        ]
        draft = {"token": params.token, "step": step + 1, "stepsLimit": 8, "elapsedMs": 300.0 * step, "spans": spans}
        server.protocol.notify("dgemma/draft", draft)
        await asyncio.sleep(0.3)
    return {"items": [], "finish": "stable", "steps": steps, "elapsedMs": 300.0 * steps, "message": ""}


@server.feature("dgemma/stats")
def _stats(params: Any) -> dict[str, Any]:
    return {"shown": 3, "accepted": 2, "ms": {"total": {"p50": 61.0, "p95": None}}}


@server.feature(types.INITIALIZED)
def _initialized(params: Any) -> None:
    if "--dies" in sys.argv:
        os._exit(1)
    server.protocol.notify("dgemma/status", {"kind": "ready", "message": "the stub", "percent": 100, "busy": False})


@server.command("dgemma.fill")
def _fill_command(*arguments: Any) -> None:
    raise AssertionError("the extension fills by itself")


@server.feature(types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=["refactor.rewrite.fill"]))
def _code_actions(params: types.CodeActionParams) -> list[types.CodeAction]:
    if params.range.start == params.range.end:
        return []
    document = server.workspace.get_text_document(params.text_document.uri)
    identifier = {"uri": params.text_document.uri, "version": document.version}
    argument = {"textDocument": identifier, "range": params.range, "kind": "selection"}
    command = types.Command(title="Fill selection", command="dgemma.fill", arguments=[argument])
    return [types.CodeAction(title="Fill selection", kind="refactor.rewrite.fill", command=command)]


if __name__ == "__main__":
    server.start_io()
