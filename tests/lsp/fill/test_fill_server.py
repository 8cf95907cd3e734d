"""Fills over stdio: code actions, the request and the command, what is refused, progress and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dgemma_lsp import __version__
from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.fill.target import MOST_CHARS, MOST_SELECTED_CHARS
from tests.lsp.editor import URI, editing
from tests.lsp.fill_editor import FillEditor
from tests.lsp.waiting import until

REQUEST_CANCELLED = -32800
INVALID_PARAMS = -32602
CELL = "vscode-notebook-cell:/w/a.ipynb#1"
pytestmark = pytest.mark.e2e


@asynccontextmanager
async def filling(tmp_path: Path, **options: Any) -> AsyncGenerator[FillEditor]:
    async with editing(tmp_path / "record.txt", **options) as editor:
        yield FillEditor(editor)


async def cancelled(answer: Any) -> None:
    with pytest.raises(JsonRpcException) as caught:
        await asyncio.wait_for(asyncio.wrap_future(answer), 5)
    assert caught.value.code == REQUEST_CANCELLED


async def test_capabilities_and_code_actions(tmp_path: Path):
    async with filling(tmp_path, answers={"": "2"}) as editor:
        assert editor.editor.result is not None
        capabilities: Any = editor.editor.result.capabilities
        assert capabilities.experimental == {"dgemma": {"version": __version__, "protocol": 1}}
        assert list(capabilities.code_action_provider.code_action_kinds) == ["refactor.rewrite.fill"]
        assert "dgemma.fill" in capabilities.execute_command_provider.commands
        for marked, titles in {
            "x = |1|\n": ["Fill selection"],
            "|# sort\nx = 1|\n": ["Fill selection", "Fill from description"],
            "    pa|ss\n": ["Fill placeholder"],
            "x = |1\n": [],
        }.items():
            span = editor.open(marked)
            actions = await editor.actions(span)
            assert [action["title"] for action in actions] == titles
            for action in actions:
                assert (action["kind"], action["command"]["command"]) == ("refactor.rewrite.fill", "dgemma.fill")
                assert "edit" not in action
                (argument,) = action["command"]["arguments"]
                assert argument["textDocument"] == {"uri": URI, "version": editor.version}
                assert argument["range"]["start"] == {"line": span.start.line, "character": span.start.character}
        assert await editor.actions(span, uri="file:///w/other.py") == []
        span = editor.open("x = |1|\n")
        for only in (["refactor"], ["refactor.rewrite"], ["refactor.rewrite.fill"], ["quickfix", ""]):
            assert len(await editor.actions(span, only=only)) == 1, only
        for only in (["refactor.extract"], ["refactor.rew"], []):
            assert await editor.actions(span, only=only) == [], only
        assert editor.editor.events() == [], "no inference while the cursor moves"


@pytest.mark.parametrize("encoding", [PositionEncoding.UTF8, PositionEncoding.UTF16])
async def test_fill_offers_candidates(tmp_path: Path, encoding: PositionEncoding):
    answers = {"'😋' + ": ["f(a)", "g(a)"]}
    async with filling(tmp_path, answers=answers, encoding=encoding) as editor:
        span = editor.open("b\r\ne\u0301 = '😋' + |1| + '😋'\r\n")
        result = await editor.fill(span)
        assert (result.uri, result.version, result.message) == (URI, editor.version, "")
        assert [candidate.label for candidate in result.candidates] == ["f(a)", "g(a)"]
        assert result.candidates[0].score == 0.5
        assert editor.applied(result, 1) == "b\r\ne\u0301 = '😋' + g(a) + '😋'\r\n"


async def test_engine_gets_the_least_column_of_a_selection(tmp_path: Path):
    async with filling(tmp_path, answers={"    ": "return 3\n\n\nx = 4"}) as editor:
        result = await editor.fill(editor.open("def f():\r\n    |return 1\r\n\r\n\r\nx = 2|\r\n"))
        assert editor.applied(result) == "def f():\r\n    return 3\r\n\r\n\r\nx = 4\r\n"
        assert editor.editor.events()[-1] == "may leave its block down to column 0"


async def test_selection_past_its_ends_is_clamped(tmp_path: Path):
    async with filling(tmp_path, answers={"": "a = 2\nb = 3"}) as editor:
        editor.open("a = 1|\r\nb = 2\r\n")
        end = types.Position(line=9, character=9)
        result = await editor.fill(types.Range(start=types.Position(line=0, character=0), end=end))
        assert editor.applied(result) == "a = 2\r\nb = 3\r\n"
        line_end = types.Position(line=0, character=99)
        back = types.Range(start=line_end, end=types.Position(line=0, character=0))
        assert editor.applied(await editor.fill(back, version=None)) == "a = 2\r\nb = 3\r\nb = 2\r\n"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("x = |1|", {"uri": "file:///w/other.py"}, "this document is not open"),
    ("x = |1|", {"version": 99}, "the document has changed since"),
    ("x = |1", {}, "nothing is selected"),
    ("x = |1", {"kind": "placeholder"}, "not on a placeholder"),
    ("x = |1|", {"kind": "description"}, "no comment or docstring"),
    ("FAULT = |1|", {}, "out of memory; use a smaller model"),
    ("nothing = |1|", {}, "the model found nothing that fits here"),
    ("x = |2|", {}, "would write the same text"),
    (f"x = |{'1' * (MOST_SELECTED_CHARS + 1)}|", {}, "the selection is too long"),
    (f"x = |1|{' ' * MOST_CHARS}", {}, "this file is too long"),
    ("DIE = |1|", {}, "the engine has ended"),
]


async def test_what_cannot_be_filled_is_reported_in_one_sentence(tmp_path: Path):
    async with filling(tmp_path, answers={"x = ": "2", "FAULT = ": "2"}) as editor:
        for marked, other, message in REFUSED:
            result = await editor.fill(editor.open(marked), **other)
            assert message in result.message
            assert "\n" not in result.message
            assert result.candidates == []
        cell = editor.open("|x = 1\n|", uri=CELL)
        beyond = types.Range(start=cell.start, end=types.Position(line=3, character=0))
        assert "spans several notebook cells" in (await editor.fill(beyond, uri=CELL)).message


async def test_command_shows_one_message_where_nothing_can_be_filled_and_edits_nothing(tmp_path: Path):
    async with filling(tmp_path, answers={"x = ": "2"}) as editor:
        for marked, other, message in REFUSED[:5]:
            before = len(editor.messages())
            await editor.run(editor.open(marked), **other)
            await until(lambda before=before: len(editor.messages()) > before)
            (shown,) = editor.messages()[before:]
            assert message in shown
        assert editor.edits == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": {"enabled": False}}, "switched off by dgemma.enabled"),
        ({"options": {"privateFiles": ["*.py"]}}, "this file is private"),
        ({"engine": {"failures": 1}}, "start one with: dgemma-engine start"),
        ({"engine": {"loading": [40, 60], "loading_step_s": 60}}, "the engine is still loading (40 %)"),
    ],
)
async def test_where_nothing_can_be_filled(tmp_path: Path, options: dict[str, Any], message: str):
    async with filling(tmp_path, answers={"x = ": "2"}, **options) as editor:
        span = editor.open("x = |1|")
        assert message in (await editor.fill(span)).message
        assert len(await editor.actions(span)) == ("enabled" not in options.get("options", {}))
        assert not [event for event in editor.editor.events() if event.startswith("asked")]


async def test_wrong_parameters_are_answered_with_an_error(tmp_path: Path):
    wrong: list[Any] = [
        {},
        {"textDocument": {"uri": URI}, "range": {}, "kind": "selection"},
        {"textDocument": {"uri": 1}, "kind": "selection"},
        {"kind": "everything"},
        None,
        [1],
    ]
    async with filling(tmp_path) as editor:
        for params in wrong:
            with pytest.raises(JsonRpcException) as caught:
                await asyncio.wait_for(editor.editor.client.protocol.send_request_async("dgemma/fill", params), 5)
            assert caught.value.code == INVALID_PARAMS


async def test_progress_begins_moves_and_ends(tmp_path: Path):
    async with filling(tmp_path, answers={"": "2"}) as editor:
        reports = editor.editor.client.progress_reports
        reports["t"] = []
        await editor.fill(editor.open("DRAFT = |1|"), workDoneToken="t")
        await until(lambda: len(reports["t"]) == 3)
        begin, report, end = reports["t"]
        assert (begin.title, begin.cancellable) == ("Filling", True)
        assert 0 < report.percentage < 100
        assert end.kind == "end"


async def test_cancelling_stops_the_engine(tmp_path: Path):
    async with filling(tmp_path) as editor:
        answer = editor.send(editor.open("SLOW = |1|"), msg_id="f1")
        await until(lambda: "asked SLOW = " in editor.editor.events())
        editor.editor.client.cancel_request(types.CancelParams(id="f1"))
        await cancelled(answer)
        await until(lambda: "cancelled SLOW = " in editor.editor.events())
        await until(lambda: editor.editor.kinds()[-1] == "ready")
        reports = editor.editor.client.progress_reports
        reports["t"] = []
        answer = editor.send(editor.open("SLOW bar = |1|"), workDoneToken="t")
        await until(lambda: "asked SLOW bar = " in editor.editor.events())
        editor.editor.client.window_work_done_progress_cancel(types.WorkDoneProgressCancelParams(token="t"))
        await cancelled(answer)
        await until(lambda: "cancelled SLOW bar = " in editor.editor.events() and len(reports["t"]) == 2)


async def test_fill_of_a_document_that_is_closed_ends(tmp_path: Path):
    """A document that is opened again may have the same version, so that a late edit would be applied."""
    async with filling(tmp_path, answers={"x = ": "2"}, progress=True) as editor:
        answer = editor.send(editor.open("SLOW = |1|"))
        await until(lambda: "asked SLOW = " in editor.editor.events())
        editor.close()
        await cancelled(answer)
        await until(lambda: "cancelled SLOW = " in editor.editor.events())
        running = asyncio.create_task(editor.run(editor.open("SLOW command = |1|")))
        await until(lambda: "asked SLOW command = " in editor.editor.events())
        editor.close()
        assert await asyncio.wait_for(running, 5) is None
        await until(lambda: "cancelled SLOW command = " in editor.editor.events())
        assert (editor.edits, editor.messages()) == ([], []), "closing a document shows no message"
        assert editor.applied(await editor.fill(editor.open("x = |1|"))) == "x = 2"


async def test_newer_fill_of_a_document_supersedes_the_older(tmp_path: Path):
    async with filling(tmp_path, answers={"x = ": "2"}) as editor:
        older = editor.send(editor.open("SLOW = |1|\nx = 1"))
        await until(lambda: "asked SLOW = " in editor.editor.events())
        start, end = types.Position(line=1, character=4), types.Position(line=1, character=5)
        assert len((await editor.fill(types.Range(start=start, end=end))).candidates) == 1
        await cancelled(older)


async def test_ghost_text_and_fill_of_a_document_run_at_the_same_time(tmp_path: Path):
    async with filling(tmp_path, answers={"x = ": "2"}) as editor:
        fill = editor.send(editor.open("SLOW = |1|\nx = "), msg_id="f1")
        await until(lambda: "asked SLOW = " in editor.editor.events())
        items = await editor.editor.ask(types.Position(line=1, character=4), invoked=True)
        assert [item.insert_text for item in items] == ["x = 2"]
        assert not fill.done()
        assert "cancelled SLOW = " not in editor.editor.events()
        editor.editor.client.cancel_request(types.CancelParams(id="f1"))
        await cancelled(fill)


async def test_document_that_changed_meanwhile_is_not_overwritten(tmp_path: Path):
    async with filling(tmp_path, answers={"": "2"}) as editor:
        for ask in (editor.fill, editor.run):
            asked = asyncio.create_task(ask(editor.open("LATER = |1|")))
            await until(lambda: editor.editor.events()[-1:] == ["asked LATER = "])
            editor.open("LATER = 1 + 1|")
            if (result := await asked) is not None:
                assert "the document has changed since" in result.message
                assert result.candidates == []
            editor.editor.record.unlink()
        await until(lambda: any("has changed since" in text for text in editor.messages()))
        assert len(editor.messages()) == 1
        assert editor.edits == []


async def test_command_applies_the_best_with_one_edit_of_one_version(tmp_path: Path):
    async with filling(tmp_path, answers={"x = ": ["2", "3"]}, progress=True) as editor:
        await editor.run(editor.open("x = |1|\n"))
        (edit,) = editor.edits
        assert edit.document_changes is not None
        (change,) = edit.document_changes
        assert isinstance(change, types.TextDocumentEdit)
        assert change.text_document == types.OptionalVersionedTextDocumentIdentifier(uri=URI, version=editor.version)
        (text_edit,) = change.edits
        assert text_edit == types.TextEdit(
            range=types.Range(start=types.Position(line=0, character=4), end=types.Position(line=0, character=5)),
            new_text="2",
        )
        assert editor.messages() == []
        (bar,) = [reports for token, reports in editor.editor.client.progress_reports.items() if "fill" in str(token)]
        assert [report.kind for report in bar] == ["begin", "end"]
        editor.applies = False
        await editor.run(editor.open("x = |1|\n"))
        await until(lambda: bool(editor.messages()))
        (message,) = editor.messages()
        assert "did not apply" in message


async def test_cancelled_command_edits_nothing(tmp_path: Path):
    async with filling(tmp_path, answers={"": "2"}, progress=True) as editor:

        async def begin(name: str) -> Any:
            argument = editor.params(editor.open(f"SLOW {name} = |1|"), "selection")
            params = types.ExecuteCommandParams(command="dgemma.fill", arguments=[argument])
            answer = editor.editor.client.protocol.send_request("workspace/executeCommand", params, msg_id=name)
            await until(lambda: f"asked SLOW {name} = " in editor.editor.events())
            return answer

        by_bar = await begin("bar")
        (token,) = (token for token in editor.editor.client.progress_reports if "fill" in str(token))
        editor.editor.client.window_work_done_progress_cancel(types.WorkDoneProgressCancelParams(token=token))
        assert await asyncio.wait_for(asyncio.wrap_future(by_bar), 5) is None
        by_request = await begin("request")
        editor.editor.client.cancel_request(types.CancelParams(id="request"))
        await cancelled(by_request)
        for name in ("bar", "request"):
            await until(lambda name=name: f"cancelled SLOW {name} = " in editor.editor.events())
        assert editor.edits == []
        assert editor.messages() == []
