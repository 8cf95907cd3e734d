"""Drafts reach the client that requested them, through the real daemon and its socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import Peer
from dgemma_engine.protocol.handshake import HELLO, PROTOCOL, Hello
from dgemma_engine.protocol.messages import DRAFT, INFILL, Draft, Finish, Infill
from dgemma_engine.protocol.status_messages import PROGRESS, STATUS, EngineState, Progress

from tests.engine.fake_engine import PATIENCE_S, SteppingEngine, context, draft, location_in, serving, until
from tests.engine.ipc.test_json_rpc import Wire, request

LONG = 4_000
CANCELLED = -32800


def loads(engine: SteppingEngine) -> Callable[..., SteppingEngine]:
    return lambda report: engine


@asynccontextmanager
async def wired(location: EngineLocation) -> AsyncIterator[Wire]:
    """A raw connection: a test sees every message in its order."""
    reader, writer = await asyncio.open_unix_connection(location.socket, limit=1 << 16)
    wire = Wire(reader, writer)
    assert [(await wire.receive())["method"] for _ in range(2)] == [HELLO, PROGRESS]
    yield wire
    writer.close()


def ask(msg_id: Any, prefix: str = "x", **values: Any) -> dict[str, Any]:
    return request(INFILL, context(prefix, **values).to_wire(), msg_id)


async def receive_until(wire: Wire, msg_id: Any) -> tuple[list[Draft], Any]:
    """Returns the drafts before the answer to a request, and the answer."""
    drafts: list[Draft] = []
    while "method" in (message := await wire.receive()):
        assert message["method"] == DRAFT
        drafts.append(Draft.from_wire(message["params"]))
    assert message["id"] == msg_id
    return drafts, message


def check_drafts(drafts: list[Draft], prefix: str, *, num_steps: int) -> None:
    """Checks that drafts are in order and of this request; a newer one or the answer may have overtaken some."""
    steps = [draft.step for draft in drafts]
    assert steps == sorted(set(steps))
    assert len(steps) > num_steps // 2
    assert [draft.text for draft in drafts] == [f"{step}:{prefix}" for step in steps]


async def test_listener_gets_the_drafts_of_its_request_before_the_answer(tmp_path: Path) -> None:
    engine, told = SteppingEngine(), dict[str, list[Draft]]()
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as client:

        async def infill(prefix: str) -> Infill:
            drafts = told[prefix] = []
            return await client.infill(context(prefix, document=prefix, steps=20), drafts.append)

        await asyncio.gather(infill("é\ud800"), infill("b\0"))
        await client.infill(context("no drafts", steps=20))
    for run, (prefix, drafts) in zip(engine.runs, told.items(), strict=False):
        check_drafts(drafts, prefix, num_steps=20)
        assert drafts[-1] == draft(run.context, drafts[-1].step)
    ids = [run.context.drafts for run in engine.runs]
    assert len(set(ids)) == 3
    assert ids[2] == ""


async def test_drafts_are_sent_to_the_requesting_connection_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, wired(location) as one, wired(location) as other:
        one.send(ask(1, "one", steps=20, drafts="same"))
        other.send(ask(1, "other", steps=20, drafts="same"))
        for wire, prefix in ((one, "one"), (other, "other")):
            drafts, answer = await receive_until(wire, 1)
            check_drafts(drafts, prefix, num_steps=20)
            assert answer["result"]["finish"] == "stable"


async def test_no_draft_is_sent_unless_requested(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, wired(location) as wire:
        wire.send(ask(1, steps=10))
        drafts, _ = await receive_until(wire, 1)
        assert drafts == []


async def test_no_draft_is_sent_after_any_kind_of_answer(tmp_path: Path) -> None:
    """The request is answered in full, at its deadline, superseded or cancelled, at random moments."""
    random, answered, num_drafts = Random(11), set[int](), 0
    async with serving(tmp_path, loads(SteppingEngine(step_s=0.001))) as location, wired(location) as wire:

        async def read() -> None:
            nonlocal num_drafts
            while len(answered) < 150:
                message = await wire.receive()
                if "method" in message:
                    assert int(message["params"]["request"]) not in answered
                    num_drafts += 1
                else:
                    answered.add(message["id"])

        reading = asyncio.create_task(read())
        for number in range(150):
            steps, deadline_ms = random.choice(((3, 60_000), (LONG, 4), (LONG, 60_000)))
            document = f"{random.randrange(2)}"
            wire.send(ask(number, document=document, steps=steps, deadline_ms=deadline_ms, drafts=str(number)))
            await asyncio.sleep(random.uniform(0.0, 0.01))
            if deadline_ms > 4 and (steps == LONG or random.random() < 0.3):
                wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": number}})
        await asyncio.wait_for(reading, PATIENCE_S)
        # A later draft would arrive before this answer.
        assert (await wire.ask(request(STATUS, {}, "last")))["id"] == "last"
    assert num_drafts > 100


@pytest.mark.parametrize("way", ["take back", "supersede"])
async def test_step_that_ends_after_the_cancellation_sends_no_draft(way: str, tmp_path: Path) -> None:
    engine = SteppingEngine(step_s=0.3)
    async with serving(tmp_path, loads(engine)) as location, wired(location) as wire:
        wire.send(ask(1, steps=LONG, drafts="id"))
        assert (await wire.receive())["params"]["step"] == 1
        await until(lambda: engine.runs[0].num_begun == 2)
        if way == "take back":
            wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}})
        else:
            wire.send(ask(2, "newer", steps=1, deadline_ms=0))
            assert (await wire.receive())["id"] == 2
        drafts, answer = await receive_until(wire, 1)
        await until(lambda: engine.runs[0].ended)
        assert (drafts, engine.runs[0].num_steps) == ([], 2)
        assert answer["error"]["code"] == CANCELLED if way == "take back" else answer["result"]["finish"] == "cancelled"
        assert (await wire.ask(request(STATUS, {}, "last")))["id"] == "last"


async def test_slow_reader_gets_the_newest_draft_and_no_backlog(tmp_path: Path) -> None:
    engine = SteppingEngine(step_s=0.001)
    async with serving(tmp_path, loads(engine)) as location, wired(location) as wire:
        wire.send(ask(1, "x" * 100_000, steps=LONG, drafts="id"))
        await until(lambda: engine.denoising_steps >= 500)  # 50 MB of drafts, if all were sent.
        steps = [0]
        while steps[-1] < 500:
            message = await wire.receive()
            assert message["method"] == DRAFT
            steps.append(message["params"]["step"])
        assert steps == sorted(steps)
        # Those in flight and in the socket's buffers, then the newest at once.
        assert len(steps) < 30
        wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}})
        _, answer = await receive_until(wire, 1)
        assert answer["error"]["code"] == CANCELLED


async def test_draft_that_waits_for_a_slow_reader_ends_with_its_request(tmp_path: Path) -> None:
    engine = SteppingEngine(step_s=0.001)
    async with serving(tmp_path, loads(engine)) as location, wired(location) as wire:
        wire.send(ask(1, "x" * 100_000, steps=LONG, drafts="id"))
        await until(lambda: engine.denoising_steps >= 100)
        wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}})
        await until(lambda: engine.runs[0].ended)
        drafts, answer = await receive_until(wire, 1)
        assert 0 < len(drafts) < 30
        assert answer["error"]["code"] == CANCELLED
        assert (await wire.ask(request(STATUS, {}, "last")))["id"] == "last"


async def test_drafts_end_when_the_client_cancels_or_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine, told = SteppingEngine(), list[Draft]()
    async with serving(tmp_path, loads(engine)) as location:
        client = await EngineClient.attach(location)
        pending = asyncio.create_task(client.infill(context(steps=LONG), told.append))
        await until(lambda: len(told) > 2)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        num_told = len(told)
        await client.infill(context(document="next", steps=3))
        assert len(told) == num_told
        pending = asyncio.create_task(client.infill(context(steps=LONG), told.append))
        await until(lambda: len(told) > num_told + 2)
        await client.close()
        with pytest.raises(EngineUnavailable):
            await pending
        num_told = len(told)
        await until(lambda: all(run.ended for run in engine.runs))
        async with await EngineClient.attach(location) as other:
            assert (await other.infill(context())).finish is Finish.STABLE
        assert len(told) == num_told
        assert client._draft_listeners == {}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_client_drops_drafts_without_a_listener(tmp_path: Path) -> None:
    """The engine sends drafts of other requests, malformed ones, and one after the answer."""
    location, told = location_in(tmp_path), list[Draft]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def infill(params: Any) -> Any:
            for drafts, step in (("stranger", 1), ("", 2), (params["drafts"], 3)):
                peer.notify(DRAFT, draft(context(drafts=drafts), step).to_wire())
            peer.notify(DRAFT, {"request": params["drafts"]})
            peer.notify(DRAFT, None)
            asyncio.get_running_loop().call_later(
                0.02, peer.notify, DRAFT, draft(context(drafts=params["drafts"]), 4).to_wire()
            )
            return Infill(text="", finish=Finish.EMPTY).to_wire()

        peer = Peer(reader, writer, requests={INFILL: infill})
        peer.notify(HELLO, Hello(protocol=PROTOCOL).to_wire())
        peer.notify(PROGRESS, Progress(state=EngineState.READY, percent=100).to_wire())
        await peer.run()

    location.prepare()
    async with await asyncio.start_unix_server(connected, location.socket):
        async with await EngineClient.attach(location) as client:
            for _ in range(2):
                assert (await client.infill(context(), told.append)).finish is Finish.EMPTY
                await asyncio.sleep(0.05)
        assert [draft.step for draft in told] == [3, 3]


async def test_failing_listener_loses_no_answer_and_logs_no_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def fail(draft: Draft) -> None:
        raise RuntimeError(draft.text)

    async with serving(tmp_path) as location, await EngineClient.attach(location) as client:
        assert (await client.infill(context("TOP_SECRET", steps=3), fail)).finish is Finish.STABLE
    assert "could not be handled" in caplog.text
    assert "TOP_SECRET" not in caplog.text
