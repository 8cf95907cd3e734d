"""The server over stdio, driven by pytest-lsp's client, with an engine that runs without a model."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dgemma_lsp.documents.positions import PositionEncoding
from tests.lsp.editor import URI, Editor, editing, inserted, replaced
from tests.lsp.waiting import until

REQUEST_CANCELLED = -32800
INVALID_PARAMS = -32602
pytestmark = pytest.mark.e2e


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


async def check(record: Path, marked: str, middle: str, expected: str, **options: Any) -> None:
    """Checks what the document becomes when the item offered at `|` is accepted."""
    text = marked.replace("|", "")
    async with editing(record, answers={"": middle}, **options) as editor:
        items = await editor.ask(editor.open(marked))
        assert inserted(text, items, editor.encoding) == expected


async def error_code(asked: asyncio.Task[Any]) -> int:
    with pytest.raises(JsonRpcException) as caught:
        await asyncio.wait_for(asked, 10)
    return caught.value.code


async def test_capabilities(record: Path):
    async with editing(record, encoding=PositionEncoding.UTF8) as editor:
        assert editor.result is not None
        capabilities = editor.result.capabilities
        assert capabilities.inline_completion_provider is not None
        assert capabilities.position_encoding == types.PositionEncodingKind.Utf8
        assert isinstance(capabilities.text_document_sync, types.TextDocumentSyncOptions)
        assert capabilities.text_document_sync.change is types.TextDocumentSyncKind.Incremental
        assert capabilities.text_document_sync.open_close
        assert capabilities.completion_provider is None
        assert editor.result.server_info is not None
        assert editor.result.server_info.name == "dgemma-lsp"


@pytest.mark.parametrize("encoding", list(PositionEncoding))
async def test_complete_after_astral_and_combining_characters(record: Path, encoding: PositionEncoding):
    await check(record, "e\u0301 = '😋' + foo(|)\n", "b)", "e\u0301 = '😋' + foo(b)\n", encoding=encoding)


async def test_complete_in_a_crlf_document(record: Path):
    await check(record, "a\r\nb = |\r\nc\r\n", "1\n", "a\r\nb = 1\r\nc\r\n")


async def test_complete_an_empty_file(record: Path):
    await check(record, "|", "import os", "import os")


async def test_position_past_the_end_is_the_end(record: Path):
    async with editing(record, answers={"b = ": "1"}) as editor:
        editor.open("a\nb = |")
        for position in (types.Position(line=1, character=99), types.Position(line=9, character=9)):
            assert inserted("a\nb = ", await editor.ask(position), editor.encoding) == "a\nb = 1"


async def test_nothing_to_offer_is_an_empty_list(record: Path):
    async with editing(record) as editor:
        assert await editor.ask(editor.open("x|")) == []


async def test_document_that_is_not_open_is_an_empty_list(record: Path):
    async with editing(record, answers={"": "1"}) as editor:
        assert await editor.ask(types.Position(line=0, character=0), uri="file:///w/other.py") == []
        editor.edit(types.Position(line=0, character=0), types.Position(line=0, character=0), "x")
        position = editor.open("x = |")
        editor.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI)))
        assert await editor.ask(position) == []


async def test_edits_reach_the_engine(record: Path):
    async with editing(record, answers={"beta = ": "1"}) as editor:
        editor.open("😋 alph|a = ")
        start, end = types.Position(line=0, character=3), types.Position(line=0, character=8)
        editor.edit(start, end, "beta")
        items = await editor.ask(types.Position(line=0, character=10))
        assert inserted("😋 beta = ", items, editor.encoding) == "😋 beta = 1"


async def test_item_extends_what_is_selected_in_the_menu(record: Path):
    async with editing(record, answers={"😋.log": "(x)"}) as editor:
        position = editor.open("a\n😋.l|o\n")
        span = types.Range(start=types.Position(line=1, character=3), end=types.Position(line=1, character=5))
        selected = types.SelectedCompletionInfo(range=span, text="log")
        (item,) = await editor.ask(position, selected=selected)
        assert (item.insert_text, item.range) == ("log(x)", span)
        back = types.Range(start=span.end, end=span.start)
        assert await editor.ask(position, selected=types.SelectedCompletionInfo(range=back, text="log")) == []


async def test_cancel_stops_the_engine(record: Path):
    async with editing(record) as editor:
        position = editor.open("SLOW|")
        params = types.InlineCompletionParams(
            text_document=types.TextDocumentIdentifier(uri=URI),
            position=position,
            context=types.InlineCompletionContext(trigger_kind=types.InlineCompletionTriggerKind.Invoked),
        )
        future = editor.client.protocol.send_request("textDocument/inlineCompletion", params, msg_id="q1")
        await until(lambda: "asked SLOW" in editor.events())
        editor.client.cancel_request(types.CancelParams(id="q1"))
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(asyncio.wrap_future(future), 5)
        assert caught.value.code == REQUEST_CANCELLED
        await until(lambda: "cancelled SLOW" in editor.events())
        await until(lambda: editor.kinds()[-1] == "ready")


async def test_newer_request_supersedes_the_older(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        first_at = editor.open("SLOW|\nx = ")
        first = asyncio.create_task(editor.ask(first_at))
        await until(lambda: "asked SLOW" in editor.events())
        assert len(await editor.ask(types.Position(line=1, character=4))) == 1
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(first, 5)
        assert caught.value.code == REQUEST_CANCELLED
        assert "cancelled SLOW" in editor.events()


async def test_requests_of_different_documents_run_at_the_same_time(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        first = asyncio.create_task(editor.ask(editor.open("SLOW|", uri="file:///w/b.py"), uri="file:///w/b.py"))
        await until(lambda: "asked SLOW" in editor.events())
        assert len(await editor.ask(editor.open("x = |"))) == 1
        assert not first.done()
    assert await asyncio.wait_for(first, 5) == [], "answered before the server ends"


async def test_edit_while_running_makes_the_answer_stale(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        position = editor.open("LATER x = |")
        asked = asyncio.create_task(editor.ask(position))
        await until(lambda: "asked LATER x = " in editor.events())
        start = types.Position(line=0, character=0)
        editor.edit(start, start, "y")
        assert await error_code(asked) == REQUEST_CANCELLED
        assert len(await editor.ask(types.Position(line=0, character=11))) == 1, "in time without an edit"


async def test_document_closed_while_running_makes_the_answer_stale(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        asked = asyncio.create_task(editor.ask(editor.open("LATER x = |")))
        await until(lambda: "asked LATER x = " in editor.events())
        editor.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI)))
        assert await error_code(asked) == REQUEST_CANCELLED


async def test_request_waits_for_an_engine_that_loads_with_progress_and_status(record: Path):
    engine = {"loading": [10, 60], "loading_step_s": 0.3}
    async with editing(record, answers={"": "1"}, engine=engine, progress=True) as editor:
        position = editor.open("x = |")
        assert len(await editor.ask(position)) == 1
        await until(lambda: editor.kinds()[-1] == "ready")
        assert {status.percent for status in editor.statuses if status.kind == "loading"} >= {10, 60}
        await until(lambda: "end" in progress_kinds(editor))
        assert progress_kinds(editor) == ["begin", "report", "end"]


async def test_request_that_waits_for_the_engine_is_superseded_like_another(record: Path):
    engine = {"loading": [10], "loading_step_s": 0.5}
    async with editing(record, answers={"x = y": "1"}, engine=engine) as editor:
        held = asyncio.create_task(editor.ask(editor.open("x = |")))
        await until(lambda: "loading" in editor.kinds())
        start = types.Position(line=0, character=4)
        editor.edit(start, start, "y")
        assert await error_code(held) == REQUEST_CANCELLED, "the edit ends it, before the engine is loaded"
        assert "ready" not in editor.kinds()
        assert len(await editor.ask(types.Position(line=0, character=5))) == 1
        assert [event for event in editor.events() if event.startswith("asked")] == ["asked x = y"]


async def test_menu_is_not_held_up_by_an_engine_that_loads(record: Path):
    engine = {"loading": [10], "loading_step_s": 2.0}
    async with editing(record, answers={"": "1"}, engine=engine, options={"completionFallback": True}) as editor:
        assert await editor.menu(editor.open("x = |")) == []
        assert "ready" not in editor.kinds()


async def test_edit_that_contradicts_a_request_in_flight_cancels_it(record: Path):
    async with editing(record) as editor:
        asked = asyncio.create_task(editor.ask(editor.open("SLOW |")))
        await until(lambda: "asked SLOW " in editor.events())
        at = types.Position(line=0, character=5)
        editor.edit(at, at, "y")
        await until(lambda: "cancelled SLOW " in editor.events())
        assert await error_code(asked) == REQUEST_CANCELLED


async def test_slow_engine_is_reported_with_the_reason(record: Path):
    async with editing(record, answers={"x = ": "1"}, options={"deadlineMs": 50}) as editor:
        for number in range(3):
            assert await editor.ask(editor.open(f"LATE {number} = |")) == []
        await until(lambda: editor.kinds()[-1] == "slow")
        reason = "the last 3 answers were cut off after 50 ms: large runs on the processor"
        assert editor.statuses[-1].reason.startswith(reason)
        assert editor.statuses[-1].message == f"slow: {editor.statuses[-1].reason}"
        assert len(await editor.ask(editor.open("x = |"))) == 1
        await until(lambda: editor.kinds()[-1] == "ready")


async def test_status_names_the_adapter_that_answered_and_says_why_one_did_not(record: Path):
    answers = {"ADAPTER = ": "1", "ADAPTER OFF = ": "2"}
    async with editing(record, answers=answers, root="file:///w") as editor:
        assert await editor.ask(editor.open("x = |\n", uri="file:///w/src/a.py"), uri="file:///w/src/a.py") == []
        assert editor.statuses[-1].adapter == ""
        await editor.ask(editor.open("ADAPTER = |\n", uri="file:///w/src/b.py"), uri="file:///w/src/b.py")
        await until(lambda: editor.statuses[-1].kind == "ready" and editor.statuses[-1].adapter == "/w/src")
        await editor.ask(editor.open("ADAPTER OFF = |\n", uri="untitled:U"), uri="untitled:U")
        await until(lambda: editor.statuses[-1].message == "it is off")
        assert editor.statuses[-1].adapter == ""


async def test_paused_language_offers_nothing_and_says_so(record: Path):
    async with editing(record, answers={"": "1"}, options={"pausedLanguages": ["python"]}) as editor:
        position = editor.open("x = |")
        assert await editor.ask(position) == []
        assert editor.events() == []
        assert editor.statuses[-1].kind == "inactive"
        assert editor.statuses[-1].reason == "python is paused by dgemma.pausedLanguages"
        settings: Any = {"dgemma": {"pausedLanguages": ["markdown"]}}
        editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
        assert len(await editor.ask(position)) == 1


def progress_kinds(editor: Editor) -> list[Any]:
    return [value.kind for values in editor.client.progress_reports.values() for value in values]


async def test_loading_without_progress_support_sends_none(record: Path):
    async with editing(record, engine={"loading": [10], "loading_step_s": 0.1}) as editor:
        await editor.ask(editor.open("x|"))
        await until(lambda: editor.kinds()[-1] == "ready")
        assert not editor.client.progress_reports


async def test_dead_engine_is_an_empty_list_one_error_and_a_restart(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        for _ in range(3):
            assert await editor.ask(editor.open("DIE|")) == []
        errors = [message for message in editor.client.messages if message.type is types.MessageType.Error]
        assert len(errors) == 1
        assert "the engine has ended" in errors[0].message


async def test_engine_that_died_is_back_for_the_next_request(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        assert await editor.ask(editor.open("DIE|")) == []
        assert len(await editor.ask(editor.open("x = |"))) == 1
        assert editor.events().count("connected") == 2


async def test_no_engine_is_an_empty_list_and_one_error(record: Path):
    async with editing(record, engine={"failures": 99}) as editor:
        for _ in range(3):
            assert await editor.ask(editor.open("x|")) == []
        assert len(editor.client.messages) == 1
        assert editor.kinds()[-1] == "error"


async def test_wrong_settings_are_reported_once_and_the_server_lives(record: Path):
    options = {"deadlineMs": "soon", "enabld": True}
    async with editing(record, answers={"": "1"}, options=options) as editor:
        position = editor.open("x = |")
        assert len(await editor.ask(position)) == 1
        again = types.DidChangeConfigurationParams(settings={"dgemma": {"deadlineMs": "soon", "seed": -1}})
        editor.client.workspace_did_change_configuration(again)
        editor.client.workspace_did_change_configuration(again)
        assert len(await editor.ask(position)) == 1
        told = [message.message for message in editor.client.messages]
        assert len(told) == 3
        assert "did you mean dgemma.enabled?" in told[1]


@pytest.mark.parametrize("options", [7, "x", [1], {"dgemma": 3}, {"engine": [1]}])
def test_odd_options_start_the_server_anyway(record: Path, options: Any):
    asyncio.run(check(record, "x = |", "1", "x = 1", options=options))


async def test_switched_off_offers_nothing_and_starts_nothing(record: Path):
    async with editing(record, answers={"": "1"}, options={"enabled": False}) as editor:
        position = editor.open("x = |")
        assert await editor.ask(position) == []
        assert editor.events() == []
        assert editor.kinds() == ["inactive"]
        settings: Any = {"dgemma": {"enabled": True}}
        editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
        assert len(await editor.ask(position)) == 1


async def test_configuration_is_pulled_where_the_editor_can(record: Path):
    async with editing(record, answers={"": "1"}, configuration={"enabled": False}) as editor:
        await until(lambda: editor.kinds()[-1:] == ["inactive"] and "off" in editor.statuses[-1].message)
        editor.client.set_configuration({"dgemma": {"enabled": True}})
        editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=None))
        await until(lambda: "off" not in editor.statuses[-1].message)
        assert len(await editor.ask(editor.open("x = |"))) == 1


async def test_changing_the_model_connects_anew(record: Path):
    async with editing(record, answers={"": "1"}) as editor:
        position = editor.open("x = |")
        await editor.ask(position)
        settings: Any = {"dgemma": {"engine": {"device": "cpu"}}}
        editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
        assert len(await editor.ask(position)) == 1
        assert editor.events().count("connected") == 2


async def test_menu_offers_one_item_when_the_setting_asks_for_it(record: Path):
    async with editing(record, answers={"": "r(x)"}, options={"completionFallback": True}) as editor:
        assert editor.result is not None
        assert editor.result.capabilities.completion_provider is not None
        (item,) = await editor.menu(editor.open("😋 = foo.ba|"))
        assert (item.label, item.preselect, item.kind) == ("bar(x)", True, types.CompletionItemKind.Text)
        assert isinstance(item.text_edit, types.TextEdit)
        edited = replaced("😋 = foo.ba", item.text_edit.range, item.text_edit.new_text, editor.encoding)
        assert edited == "😋 = foo.bar(x)"


async def test_menu_is_registered_when_the_setting_comes_later(record: Path):
    async with editing(record, answers={"": "1"}, dynamic=True) as editor:
        registered: list[str] = []

        @editor.client.feature(types.CLIENT_REGISTER_CAPABILITY)
        def register(params: types.RegistrationParams) -> None:
            registered.extend(registration.method for registration in params.registrations)

        settings: Any = {"dgemma": {"completionFallback": True}}
        editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
        await until(lambda: types.TEXT_DOCUMENT_COMPLETION in registered)
        assert len(await editor.menu(editor.open("x = |"))) == 1


async def test_request_with_wrong_parameters_is_answered(record: Path):
    async with editing(record) as editor:
        answered: Future[Any] = Future()
        protocol = editor.client.protocol
        protocol._request_futures["bad"] = answered
        params = {"position": "here"}
        request = {"jsonrpc": "2.0", "id": "bad", "method": types.TEXT_DOCUMENT_INLINE_COMPLETION, "params": params}
        protocol._send_data(request)
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(asyncio.wrap_future(answered), 5)
        assert caught.value.code == INVALID_PARAMS
        assert await editor.ask(editor.open("x|")) == []


async def test_shutdown_in_mid_request_ends_the_server(record: Path):
    async with editing(record) as editor:
        asked = asyncio.create_task(editor.ask(editor.open("SLOW|")))
        await until(lambda: "asked SLOW" in editor.events())
    await asyncio.wait([asked], timeout=5)
    assert asked.done()
    assert editor.events()[-2:] == ["cancelled SLOW", "ended"]


async def tally(editor: Editor) -> Any:
    """Returns the counts of the session."""
    return await editor.client.protocol.send_request_async("dgemma/tally", None)


async def test_typing_through_an_item_asks_nothing(record: Path):
    async with editing(record, answers={"x = ": "value(1)\n"}, options={"speculation": False}) as editor:
        position = editor.open("x = |")
        await editor.ask(position)
        for index, key in enumerate("value"):
            at = types.Position(line=0, character=4 + index)
            editor.edit(at, at, key)
            text = "x = value"[: 5 + index]
            items = await editor.ask(types.Position(line=0, character=5 + index))
            assert inserted(text, items, editor.encoding) == "x = value(1)"
        assert [event for event in editor.events() if event.startswith("asked")] == ["asked x = "]


async def test_deletion_asks_nothing_and_an_earlier_answer_serves(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        editor.open("x = ab|")
        here, there = types.Position(line=0, character=5), types.Position(line=0, character=6)
        editor.edit(here, there, "")
        assert await editor.ask(here) == []
        assert editor.events() == [], "nothing was asked, not even for an engine"
        start = types.Position(line=0, character=4)
        editor.edit(start, here, "")
        assert len(await editor.ask(start, invoked=True)) == 1, "an explicit request is answered"
        editor.edit(start, start, "q")
        assert await editor.ask(here) == []
        editor.edit(start, here, "")
        assert len(await editor.ask(start)) == 1, "the earlier answer serves after a deletion"
        assert editor.events().count("asked x = ") == 1


@pytest.mark.parametrize(
    ("asked_by_hand", "num_asked"),
    [
        ([False, True, False, True, False], 2),
        ([True, False, True, False], 2),
        ([True, True, False, False], 2),
    ],
)
async def test_unlikely_answer_serves_explicit_requests_only(record: Path, asked_by_hand: list[bool], num_asked: int):
    async with editing(record, answers={"x = ": "1"}, options={"speculation": False}) as editor:
        position = editor.open("UNLIKELY x = |")
        for by_hand in asked_by_hand:
            assert len(await editor.ask(position, invoked=by_hand)) == by_hand
        assert editor.events().count("asked UNLIKELY x = ") == num_asked, "each kind of request is asked once"


async def test_likely_answer_to_an_explicit_request_serves_every_request(record: Path):
    async with editing(record, answers={"x = ": "1"}, options={"speculation": False}) as editor:
        position = editor.open("x = |")
        for by_hand in (True, False, True, False):
            assert len(await editor.ask(position, invoked=by_hand)) == 1
        assert editor.events().count("asked x = ") == 1


async def test_unlikely_item_stays_only_while_it_is_typed(record: Path):
    answers = {"x = ": "value", "x = v": "ast"}
    async with editing(record, answers=answers, options={"speculation": False}) as editor:
        position = editor.open("UNLIKELY x = |")
        assert len(await editor.ask(position, invoked=True)) == 1
        then = types.Position(line=0, character=position.character + 1)
        editor.edit(position, position, "v")
        items = await editor.ask(then)
        assert inserted("UNLIKELY x = v", items, editor.encoding) == "UNLIKELY x = value"
        editor.edit(position, then, "")
        assert await editor.ask(position) == [], "the item is not shown again automatically"
        editor.edit(position, position, "v")
        assert await editor.ask(then) == []


async def test_automatic_request_gets_no_unlikely_answer_from_an_explicit_one_in_flight(record: Path):
    async with editing(record, answers={"x = ": "1"}, options={"speculation": False}) as editor:
        position = editor.open("UNLIKELY LATER x = |")
        by_hand = asyncio.create_task(editor.ask(position, invoked=True))
        await until(lambda: "asked UNLIKELY LATER x = " in editor.events())
        assert await editor.ask(position) == []
        await asyncio.wait([by_hand])
        assert len(await editor.ask(position, invoked=True)) == 1


async def test_explicit_request_gets_an_unlikely_answer_while_an_automatic_one_is_in_flight(record: Path):
    async with editing(record, answers={"x = ": "1"}, options={"speculation": False}) as editor:
        position = editor.open("UNLIKELY LATER x = |")
        automatic = asyncio.create_task(editor.ask(position))
        await until(lambda: "asked UNLIKELY LATER x = " in editor.events())
        assert len(await editor.ask(position, invoked=True)) == 1
        await asyncio.wait([automatic])


async def test_speculative_request_after_an_unlikely_item_is_automatic(record: Path):
    async with editing(record, answers={"x = ": "1\n", "x = 1": " + 2"}) as editor:
        position = editor.open("UNLIKELY x = |")
        assert len(await editor.ask(position, invoked=True)) == 1
        await until(lambda: "asked UNLIKELY x = 1 speculative" in editor.events())
        editor.edit(position, position, "1")
        assert await editor.ask(types.Position(line=0, character=position.character + 1)) == []


async def test_cancelled_request_is_answered_at_once_and_its_work_adopted(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        position = editor.open("LATER x = |")
        future = editor.send(position, msg_id="q1")
        await until(lambda: "asked LATER x = " in editor.events())
        editor.client.cancel_request(types.CancelParams(id="q1"))
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(asyncio.wrap_future(future), 5)
        assert caught.value.code == REQUEST_CANCELLED
        assert len(await editor.ask(position)) == 1
        assert editor.events().count("asked LATER x = ") == 1


async def test_typed_text_that_the_draft_begins_with_waits_for_it(record: Path):
    async with editing(record, answers={"x = ": "value"}) as editor:
        older = asyncio.create_task(editor.ask(editor.open("DRAFT x = |")))
        await until(lambda: "drafted DRAFT x = " in editor.events())
        at, then = types.Position(line=0, character=10), types.Position(line=0, character=11)
        editor.edit(at, at, "v")
        items = await editor.ask(then)
        assert inserted("DRAFT x = v", items, editor.encoding) == "DRAFT x = value"
        with pytest.raises(JsonRpcException) as caught:
            await asyncio.wait_for(older, 5)
        assert caught.value.code == REQUEST_CANCELLED
        assert [event for event in editor.events() if "asked" in event] == ["asked DRAFT x = "]


async def test_typed_text_that_the_draft_contradicts_cancels_at_once(record: Path):
    async with editing(record, answers={"x = ": "value", "x = q": "uite"}) as editor:
        older = asyncio.create_task(editor.ask(editor.open("DRAFT x = |")))
        await until(lambda: "drafted DRAFT x = " in editor.events())
        at, then = types.Position(line=0, character=10), types.Position(line=0, character=11)
        editor.edit(at, at, "q")
        items = await editor.ask(then)
        assert inserted("DRAFT x = q", items, editor.encoding) == "DRAFT x = quite"
        assert "cancelled DRAFT x = " in editor.events()
        await asyncio.wait([older])


async def test_accepted_item_is_followed_by_the_speculative_answer(record: Path):
    async with editing(record, answers={"x = ": "1\n", "x = 1": " + 2"}) as editor:
        position = editor.open("x = |")
        assert len(await editor.ask(position)) == 1
        await until(lambda: "asked x = 1 speculative" in editor.events())
        editor.edit(position, position, "1")
        items = await editor.ask(types.Position(line=0, character=5))
        assert inserted("x = 1", items, editor.encoding) == "x = 1 + 2"
        assert [event for event in editor.events() if "asked" in event] == ["asked x = ", "asked x = 1 speculative"]
        counts = await tally(editor)
        assert counts.sources.store == 1
        assert counts.prepared_used == 1


async def test_accepted_menu_entry_is_served_by_its_earlier_answer(record: Path):
    async with editing(record, answers={"x = value": "(1)"}, options={"speculation": False}) as editor:
        position = editor.open("x = v|")
        start = types.Position(line=0, character=4)
        entry = types.SelectedCompletionInfo(range=types.Range(start=start, end=position), text="value")
        (item,) = await editor.ask(position, selected=entry)
        assert item.insert_text == "value(1)"
        editor.edit(position, position, "a")
        here = types.Position(line=0, character=6)
        entry = types.SelectedCompletionInfo(range=types.Range(start=start, end=here), text="value")
        assert len(await editor.ask(here, selected=entry)) == 1, "typed towards the entry"
        editor.edit(start, here, "value")
        (item,) = await editor.ask(types.Position(line=0, character=9))
        assert item.insert_text == "x = value(1)"
        assert [event for event in editor.events() if "asked" in event] == ["asked x = value"]


async def test_speculation_can_be_switched_off(record: Path):
    async with editing(record, answers={"x = ": "1"}, options={"speculation": False}) as editor:
        assert len(await editor.ask(editor.open("x = |"))) == 1
        await asyncio.sleep(0.4)
        assert [event for event in editor.events() if "asked" in event] == ["asked x = "]


async def test_engine_that_answers_with_nothing_is_asked_at_every_second_key(record: Path):
    async with editing(record, answers={"x = abcd": "e"}) as editor:
        position = editor.open("x = |")
        assert await editor.ask(position) == []
        futures: list[Any] = []
        for number, key in enumerate("abc"):
            await asyncio.sleep(0.2)
            at = types.Position(line=0, character=position.character + number)
            editor.edit(at, at, key)
            futures.append(editor.send(types.Position(line=0, character=at.character + 1), msg_id=f"n{number}"))
        await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        assert [event for event in editor.events() if "asked" in event][:2] == ["asked x = ", "asked x = ab"]
        at = types.Position(line=0, character=position.character + 3)
        editor.edit(at, at, "d")
        (item,) = await editor.ask(types.Position(line=0, character=at.character + 1))
        assert item.insert_text == "x = abcde", "a pause in typing is answered"


async def test_each_request_of_a_burst_is_answered_once(record: Path):
    """One document, keys without pause, every third request cancelled, an engine that takes half a second."""
    async with editing(record, answers={"": "1"}) as editor:
        position = editor.open("LATER x|")
        futures: list[Any] = []
        for number in range(60):
            at = types.Position(line=0, character=position.character + number)
            editor.edit(at, at, "x")
            futures.append(editor.send(types.Position(line=0, character=at.character + 1), msg_id=f"s{number}"))
            if number % 3 == 0:
                editor.client.cancel_request(types.CancelParams(id=f"s{number}"))
            await asyncio.sleep(0.005)
        answers = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, JsonRpcException)]
        assert len(answers[-1]) == 1
        assert {error.code for error in errors} == {REQUEST_CANCELLED}
        counts = await tally(editor)
        assert sum(counts.sources) + counts.superseded == 60


async def test_engine_that_dies_leaves_no_request_unanswered(record: Path):
    async with editing(record) as editor:
        assert await editor.ask(editor.open("DIE|")) == []
        assert await editor.ask(editor.open("x|", uri="file:///w/b.py"), uri="file:///w/b.py") == []
