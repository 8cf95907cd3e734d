"""The client against the real HTTP server: answers, drafts, cancellation, text changes, retries."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from dgemma_engine.errors import EngineFault, EngineUnavailable, NotNow
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.definition_messages import DefinitionsQuery
from dgemma_engine.protocol.messages import DocumentEdges, Draft, Extent, Finish, Snippet
from dgemma_engine.protocol.remote_messages import CANCEL_PATH
from dgemma_engine.protocol.status_messages import EngineState
from dgemma_engine.remote import remote_engine

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, until
from tests.engine.remote.elsewhere import elsewhere, question

LINES = [f"value_{number} = compute(value_{number - 1}, {number})\n" for number in range(2_000)]


async def test_answer_is_that_of_the_engine() -> None:
    async with elsewhere() as there:
        infill = await there.remote.infill(question())
        local = await there.engine.infill(question())
    assert replace(infill, timings_ms={}) == replace(local, timings_ms={})
    assert infill.timings_ms["encode"] == 3.0
    assert infill.timings_ms["network"] >= 0


async def test_every_field_of_a_request_arrives() -> None:
    asked = question(
        path="a.py",
        language="python",
        snippets=(Snippet(path="b.py", text="B"),),
        edits=(Snippet(path="a.py", text="-a\n+b\n"),),
        extent=Extent.BLOCK,
        max_middle_tokens=512,
        seed=3,
        on_demand=True,
        insistent=True,
        least_column=4,
        edges=DocumentEdges(above="above\n", is_cut=True),
    )
    async with elsewhere() as there:
        # A local folder is not sent.
        await there.remote.infill(replace(asked, folder="/home/ann/secret"))
    (arrived,) = there.engine.contexts
    assert replace(arrived, document=asked.document, deadline_ms=asked.deadline_ms) == asked
    assert 0 < arrived.deadline_ms <= asked.deadline_ms
    assert arrived.document.endswith(asked.document)


async def test_drafts_come_before_the_answer_and_none_after_it() -> None:
    drafts: list[Draft] = []
    async with elsewhere() as there:
        infill = await there.remote.infill(question(), drafts.append)
    assert [draft.text for draft in drafts] == ["alpha"] * len(drafts) and drafts
    assert sorted({draft.step for draft in drafts}) == [draft.step for draft in drafts], "each once, in order"
    assert infill.text == "alpha + beta"


async def test_trace_definitions_and_status() -> None:
    async with elsewhere() as there:
        assert (await there.remote.trace(question())).infill.text == "alpha + beta"
        found = await there.remote.definitions(DefinitionsQuery(text="def f(): ...\n", names=("f",)))
        assert found.texts == {"f": "def f(): ..."}
        status = await there.remote.status()
        assert (status.model, status.model_path) == ("fake", ""), "a path of the server is not sent"
        assert status.adapters == {}, "nor its repositories"
        assert (await there.remote.wait_ready(5)).model == "fake"


async def test_cancelled_request_ends_at_the_engine_and_keeps_the_connection() -> None:
    async with elsewhere() as there:
        # A request, its cancellation, the next request, and the first status request.
        await until(lambda: there.network.num_connections >= 3)
        for number in range(5):
            asking = asyncio.create_task(there.remote.infill(question(f"SLOW {number}")))
            await until(lambda number=number: len(there.engine.contexts) == number + 1)
            asking.cancel()
            await until(lambda number=number: there.engine.num_cancelled == number + 1)
        assert (await there.remote.infill(question())).text == "alpha + beta"
        assert there.network.num_connections <= 4, "no new connection for each cancelled request"


async def test_cancelled_request_is_not_retried_on_a_broken_connection() -> None:
    async with elsewhere() as there:
        asking = asyncio.create_task(there.remote.infill(question("SLOW ")))
        await until(lambda: len(there.engine.contexts) == 1)
        asking.cancel()
        await asyncio.sleep(0)
        there.network.cut()
        await until(lambda: not there.remote._tasks)
        assert len(there.engine.contexts) == 1, "the question that was taken back came again"


async def test_cancelled_trace_is_not_retried() -> None:
    async with elsewhere() as there:
        await there.remote.infill(question("alpha"))
        asking = asyncio.create_task(there.remote.trace(question("alpha SLOW ")))
        await until(lambda: len(there.engine.contexts) == 2)
        asking.cancel()
        await until(lambda: there.engine.num_cancelled == 1)
        assert (await there.remote.infill(question("alpha beta"))).text
        assert len(there.engine.contexts) == 3, "the question that was taken back came again"


async def test_request_that_is_answered_soon_is_not_cancelled_at_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "_CANCEL_PAUSE_S", 60.0)
    async with elsewhere() as there:
        asking = asyncio.create_task(there.remote.infill(question("LATER ")))
        await until(lambda: len(there.engine.contexts) == 1)
        asking.cancel()
        assert (await there.remote.infill(question("LATER x"))).text == "alpha + beta"
        await until(lambda: not there.remote._tasks)
        assert CANCEL_PATH.encode() not in b"".join(there.network.sent)


async def test_no_draft_is_passed_on_after_the_cancellation() -> None:
    drafts: list[Draft] = []
    async with elsewhere() as there:
        asking = asyncio.create_task(there.remote.infill(question("SLOW "), drafts.append))
        await until(lambda: bool(there.engine.contexts))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        num_drafts = len(drafts)
        await until(lambda: there.engine.num_cancelled == 1)
        await asyncio.sleep(0.05)
    assert len(drafts) == num_drafts


async def test_keystroke_in_a_long_file_sends_at_most_4_kib() -> None:
    middle = "".join(LINES[:1_000])
    async with elsewhere() as there:
        asked = replace(question(middle[-16_000:]), suffix="".join(LINES[1_000:])[:8_000])
        await there.remote.infill(asked)
        first = sum(map(len, there.network.sent))
        assert first > 20_000
        for typed in ("r", "re", "ret", "retu", "retur", "return", "return ", "return x"):
            there.network.sent.clear()
            edits = (Snippet(path="a.py", text=f"-\n+{typed}\n"),)
            await there.remote.infill(replace(asked, prefix=asked.prefix + typed, edits=edits))
            assert sum(map(len, there.network.sent)) <= 4_096
            assert there.engine.contexts[-1].prefix == asked.prefix + typed
        # The window moves: only its new text is sent.
        there.network.sent.clear()
        await there.remote.infill(replace(asked, prefix=asked.prefix[4_000:] + "return x\n"))
        assert sum(map(len, there.network.sent)) <= 4_096


async def test_engine_without_the_earlier_text_is_sent_the_whole_text() -> None:
    async with elsewhere() as there:
        asked = question("y" * 3_000)
        await there.remote.infill(asked)
        # As after a restart of the server.
        there.remote._session = "another"
        assert (await there.remote.infill(replace(asked, prefix=asked.prefix + "z"))).text == "alpha + beta"
        assert there.engine.contexts[-1].prefix == "y" * 3_000 + "z"
        assert len(there.engine.contexts) == 2


async def test_connection_that_broke_is_retried_once() -> None:
    async with elsewhere() as there:
        there.network.cut()
        await asyncio.sleep(0.02)
        assert (await there.remote.infill(question())).text == "alpha + beta"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("has_drafts", [False, True])
async def test_partial_answer_is_retried_and_drafts_are_not_passed_on_twice(share: float, has_drafts: bool) -> None:
    drafts: list[Draft] = []
    async with elsewhere() as there:
        await asyncio.sleep(0.05)
        cuts = iter([True])

        def half(data: bytes) -> bytes | None:
            return data[: int(len(data) * share)] or None if b"alpha" in data and next(cuts, False) else data

        there.network.from_engine, there.network.cuts_short = half, True
        infill = await there.remote.infill(question(), drafts.append if has_drafts else None)
    assert infill.text == "alpha + beta"
    assert len({draft.step for draft in drafts}) == len(drafts)


async def test_connection_that_breaks_twice_gives_no_answer_and_affects_no_other() -> None:
    async with elsewhere() as there:
        other = asyncio.create_task(there.remote.infill(question("SLOW ", "file:///b.py")))
        await until(lambda: len(there.engine.contexts) == 1)
        there.network.from_engine = lambda data: None if b"alpha" in data else data
        with pytest.raises(NotNow, match="broke the connection off before its answer, twice"):
            await there.remote.infill(question())
        assert len(there.engine.contexts) == 3
        assert not other.done()
        there.network.from_engine = lambda data: data
        assert (await there.remote.infill(question())).text == "alpha + beta"
        other.cancel()


async def test_busy_engine_gets_no_requests_during_the_pause() -> None:
    settings = HttpSettings(bind=FREE_PORT.bind, max_requests=1)
    async with elsewhere(AnsweringEngine(), settings) as there:
        asking = asyncio.create_task(there.remote.infill(question("SLOW ")))
        await until(lambda: bool(there.engine.contexts))
        with pytest.raises(NotNow, match="has too much to do; it can be asked again in 1 s"):
            await there.remote.infill(question())
        num_sent = len(there.network.sent)
        with pytest.raises(NotNow, match="has too much to do"):
            await there.remote.infill(question())
        assert len(there.network.sent) == num_sent, "nothing is sent during the pause"
        asking.cancel()


async def test_loading_engine_reports_progress_and_answers_later() -> None:
    engine = AnsweringEngine()
    ready, engine.status = engine.status, replace(engine.status, state=engine.status.state.LOADING, percent=40)
    async with elsewhere(engine) as there:
        assert [(one.state, one.percent) for one in there.progress] == [(EngineState.LOADING, 40)]
        with pytest.raises(NotNow, match="loads its model"):
            await there.remote.infill(question())
        engine.status = ready
        await until(lambda: there.progress[-1].state is EngineState.READY)
        assert (await there.remote.infill(question())).text == "alpha + beta"


async def test_error_of_one_request_is_an_engine_fault() -> None:
    async with elsewhere() as there:
        with pytest.raises(EngineFault, match="the engine failed on this question"):
            await there.remote.infill(question("CRASH"))
        assert (await there.remote.infill(question())).text == "alpha + beta"


async def test_silent_server_gives_no_answer_at_the_deadline_and_is_then_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with elsewhere() as there:
        there.network.to_engine = lambda data: b""
        asked = replace(question(), deadline_ms=50)
        # The wait beyond the deadline only detects a lost server, and must delay no answer.
        monkeypatch.setattr(remote_engine, "_GRACE_S", 0.2)
        with pytest.raises(NotNow, match="has not answered by the deadline; the next request asks again"):
            await there.remote.infill(asked)
        assert there.lost == []
        await until(lambda: bool(there.lost))
        assert "does not answer: the network is down" in str(there.lost[0])


async def test_busy_engine_may_be_late_without_being_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine under load may be slow to send its answer.
    monkeypatch.setattr(remote_engine, "_GRACE_S", 30.0)
    async with elsewhere() as there:
        asked = replace(question("SLOW "), deadline_ms=1_500)
        with pytest.raises(NotNow, match="has not answered by the deadline"):
            await there.remote.infill(asked)
        await until(lambda: not there.remote._tasks)
        assert there.lost == [] and there.engine.num_cancelled == 1
        # It answers about half a second after its deadline; each late answer raises the measured delay.
        for _ in range(4):
            try:
                finish = (await there.remote.infill(asked)).finish
                break
            except NotNow:
                await until(lambda: not there.remote._tasks)
        else:
            pytest.fail("every answer came late")
        assert finish is Finish.DEADLINE
        assert there.engine.contexts[-1].deadline_ms <= 1_000
        assert there.lost == []


async def test_late_answer_is_dropped() -> None:
    drafts: list[Draft] = []
    async with elsewhere() as there:
        there.engine.step_s = 0.2
        with pytest.raises(NotNow, match="has not answered by the deadline"):
            await there.remote.infill(replace(question(), deadline_ms=100), drafts.append)
        num_drafts = len(drafts)
        await until(lambda: not there.remote._tasks)
        assert len(drafts) == num_drafts and there.lost == []


async def test_deadline_is_reduced_by_the_network_time() -> None:
    async with elsewhere() as there:
        there.network.delay_s = 0.1
        await there.remote.infill(question())
        await there.remote.infill(question())
    assert there.engine.contexts[-1].deadline_ms < 5_000 - 50


async def test_closed_connection_fails_requests_in_progress() -> None:
    async with elsewhere() as there:
        asking = asyncio.create_task(there.remote.infill(question("SLOW ")))
        await until(lambda: bool(there.engine.contexts))
        await there.remote.close()
        with pytest.raises(EngineUnavailable, match="is closed"):
            await asking
        with pytest.raises(EngineUnavailable, match="is closed"):
            await there.remote.infill(question())


def held_until_the_answer() -> Callable[[bytes], bytes]:
    """Returns the behaviour of a proxy that forwards an answer only as a whole."""
    held = bytearray()

    def hold(data: bytes) -> bytes:
        held.extend(data)
        is_whole = held.endswith(b"0\r\n\r\n") if b"chunked" in held else b'"answer"' in held
        if not is_whole:
            return b""
        whole, held[:] = bytes(held), b""
        return whole

    return hold


async def test_proxy_is_reported_while_it_holds_drafts_back() -> None:
    async with elsewhere() as there:
        await asyncio.sleep(0.05)
        there.network.from_engine = held_until_the_answer()
        there.engine.step_s = 0.2
        for _ in range(2):
            await there.remote.infill(question(), lambda _draft: None)
            assert there.progress[-1].message == f"engine at {there.remote.place}", "one delay may be chance"
        await there.remote.infill(question(), lambda _draft: None)
        assert there.progress[-1].message.endswith(
            "drafts come late; let it pass streams on, in nginx with proxy_buffering off"
        )
        await there.remote.infill(question())
        assert "a proxy on the way holds answers back" in there.progress[-1].message, "no drafts: no evidence"
        there.network.from_engine = lambda data: data
        await there.remote.infill(question(), lambda _draft: None)
        assert there.progress[-1].message == f"engine at {there.remote.place}"


async def test_stalled_network_is_not_reported_as_a_proxy() -> None:
    async with elsewhere() as there:
        await asyncio.sleep(0.05)
        there.network.from_engine = held_until_the_answer()
        there.network.delay_s = 0.2
        there.engine.step_s = 0.1
        for _ in range(4):
            await there.remote.infill(question(), lambda _draft: None)
        assert there.progress[-1].message == f"engine at {there.remote.place}"


async def test_resets_delays_and_partial_answers_leave_no_request_unanswered() -> None:
    """A short form of `make bench-remote`."""
    draw = random.Random(7)
    async with elsewhere() as there:

        def spoil(data: bytes) -> bytes | None:
            number = draw.random()
            return None if number < 0.03 else data[: len(data) // 2] if number < 0.04 else data

        there.network.from_engine, there.network.cuts_short = spoil, True
        answered = 0
        for number in range(200):
            try:
                infill = await there.remote.infill(question(f"x{number} = "))
                assert infill.text == "alpha + beta"
                answered += 1
            except NotNow as error:
                assert "twice" in str(error)
    assert answered > 150


async def test_request_holds_no_more_than_the_message() -> None:
    async with elsewhere() as there:
        there.network.sent.clear()
        await there.remote.infill(question("only this"))
        sent = b"".join(there.network.sent)
    body, _ = json.JSONDecoder().raw_decode(sent[sent.index(b'{"protocol"') :].decode())
    assert set(body) == {"protocol", "session", "request", "number", "base", "pieces", "sum", "drafts"}
