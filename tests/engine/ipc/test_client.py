"""The client against the real daemon on the same event loop."""

from __future__ import annotations

import asyncio
import logging
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from dgemma_engine.errors import EngineFault, EngineUnavailable, SocketRefused
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import STREAM_LIMIT_BYTES, Peer
from dgemma_engine.protocol.definition_messages import DefinitionsQuery
from dgemma_engine.protocol.messages import INFILL, Context, Finish, Infill
from dgemma_engine.protocol.status_messages import PROGRESS, EngineState, Progress
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

from tests.engine.fake_engine import (
    PATIENCE_S,
    SteppingEngine,
    context,
    load_failing,
    load_slowly,
    location_in,
    serving,
    until,
)

LONG = 4_000


def loads(engine: SteppingEngine) -> Callable[..., SteppingEngine]:
    return lambda report: engine


async def test_infill_round_trip_and_status(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await EngineClient.attach(location) as client:
        await client.wait_ready(PATIENCE_S)
        infill = await client.infill(context("ab🦀", "c"))
        assert (infill.text, infill.finish, infill.steps) == ("3|1", Finish.STABLE, 1)
        status = await client.status()
        assert (status.state, status.model, status.device, status.clients) == (EngineState.READY, "stepping", "cpu", 1)
        assert status.requests == {"stable": 1, "step_limit": 0, "deadline": 0, "cancelled": 0, "empty": 0, "fault": 0}
        assert status.denoising_steps == 1
        assert status.memory_bytes > 2**20
        assert status.stages["total"].count == 1


async def test_attach_without_engine_is_unavailable_and_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"; start one with: dgemma-engine start --model tiny$"):
        await EngineClient.attach(location_in(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


async def test_attach_to_a_silent_socket_is_unavailable(tmp_path: Path) -> None:
    location = location_in(tmp_path)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(say_nothing, path=location.socket):
        with pytest.raises(EngineUnavailable, match=r"the engine did not answer on .* within 0.1 s; see"):
            await EngineClient.attach(location, timeout_s=0.1)


async def test_failed_attempt_does_not_call_on_closed(tmp_path: Path) -> None:
    """An engine that is exiting may accept a connection and close it; the next attempt must start clean."""
    location = location_in(tmp_path)
    closed: list[str] = []

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    location.prepare()
    async with await asyncio.start_unix_server(hang_up, location.socket):
        with pytest.raises(EngineUnavailable, match=r"has ended; start one with: dgemma-engine start --model tiny$"):
            await EngineClient.attach(location, on_closed=lambda: closed.append("closed"))
    assert closed == []


async def test_attach_refuses_a_directory_of_another_user(tmp_path: Path) -> None:
    location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(tmp_path)}, uid=12_345)
    with pytest.raises(SocketRefused, match="belongs to user"):
        await EngineClient.attach_or_start(location)


async def test_cancelling_the_caller_stops_the_denoising_steps(tmp_path: Path) -> None:
    engine = SteppingEngine()
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as client:
        pending = asyncio.create_task(client.infill(context(steps=LONG)))
        await until(lambda: engine.denoising_steps > 2)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        assert (await client.infill(context(document="next"))).finish is Finish.STABLE
        assert engine.denoising_steps < LONG
        steps = (await client.status()).denoising_steps
        await asyncio.sleep(0.05)
        status = await client.status()
        assert status.denoising_steps == steps
        assert status.requests["cancelled"] == 1


async def test_newest_request_of_a_document_wins_and_all_are_answered(tmp_path: Path) -> None:
    engine = SteppingEngine()
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as client:
        pending: list[asyncio.Task[Infill]] = []
        for length in range(1, 6):
            steps = 1 if length == 5 else LONG
            pending.append(asyncio.create_task(client.infill(context("x" * length, steps=steps))))
            await asyncio.sleep(0.02)
        infills = await asyncio.wait_for(asyncio.gather(*pending), PATIENCE_S)
        assert [infill.finish for infill in infills] == [Finish.CANCELLED] * 4 + [Finish.STABLE]
        assert infills[-1].text == "5|1"


async def test_two_clients_share_one_engine_and_do_not_supersede_each_other(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as location,
        await EngineClient.attach(location) as first,
        await EngineClient.attach(location) as second,
    ):
        infills = await asyncio.gather(*(client.infill(context(steps=20)) for client in (first, second)))
        assert [infill.finish for infill in infills] == [Finish.STABLE] * 2
        one, other = await first.status(), await second.status()
        assert one.pid == other.pid
        assert one.clients == 2
        assert one.denoising_steps == 40


async def test_closing_a_connection_cancels_its_requests_only(tmp_path: Path) -> None:
    engine = SteppingEngine()
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as stays:
        leaves = await EngineClient.attach(location)
        pending = asyncio.create_task(leaves.infill(context("leaves", steps=LONG)))
        await until(lambda: engine.denoising_steps > 2)
        await leaves.close()
        with pytest.raises(EngineUnavailable):
            await pending
        infill = await asyncio.wait_for(stays.infill(context("stays")), PATIENCE_S)
        assert infill.finish is Finish.STABLE
        assert (await stays.status()).clients == 1


async def test_cancelled_requests_begin_at_most_one_further_step(tmp_path: Path) -> None:
    """200 requests at random moments: cancelled, superseded, or ended by a client that disconnects."""
    random, engine = Random(7), SteppingEngine(step_s=0.0015)
    steps_after_sending: list[int] = []
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as client:
        for number in range(200):
            way = random.choice(("take back", "take back", "supersede", "hang up"))
            asking = await EngineClient.attach(location) if way == "hang up" else client
            pending = asyncio.create_task(asking.infill(context(f"cancelled {number}", steps=500)))
            await asyncio.sleep(random.uniform(0.0, 0.015))
            num_steps = engine.denoising_steps
            if way == "supersede":
                assert (await client.infill(context("newer"))).finish is Finish.STABLE
                assert (await pending).finish is Finish.CANCELLED
            elif way == "take back":
                pending.cancel()
                await asyncio.wait([pending])
            else:
                await asking.close()
                with pytest.raises(EngineUnavailable):
                    await pending
            await until(lambda: all(run.ended for run in engine.runs))
            steps_after_sending.append(engine.denoising_steps - num_steps - (way == "supersede"))
            assert all(run.num_after_cancel <= 1 for run in engine.runs)
            assert all(run.num_steps < 500 for run in engine.runs)
    cancelled = [run for run in engine.runs if run.context.prefix != "newer"]
    assert len(cancelled) >= 100  # The others were cancelled before they were started.
    assert statistics.median(steps_after_sending) <= 2  # Includes the time in the socket.


@pytest.mark.parametrize("document", ["busy", "other"])
async def test_deadline_of_zero_is_answered_while_a_request_runs(document: str, tmp_path: Path) -> None:
    engine = SteppingEngine(step_s=1.0)
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as client:
        running = asyncio.create_task(client.infill(context(document="busy", steps=LONG)))
        await until(lambda: len(engine.runs) == 1)
        infill = await client.infill(context(document=document, deadline_ms=0))
        assert (infill.text, infill.finish, infill.steps) == ("", Finish.DEADLINE, 0)
        assert (engine.denoising_steps, len(engine.runs), running.done()) == (0, 1, False)
        running.cancel()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 10**400),
        ("seed", True),
        ("deadline_ms", -1),
        ("deadline_ms", -0.001),
        ("deadline_ms", float("nan")),
        ("deadline_ms", float("inf")),
        ("deadline_ms", 600_001),
        ("deadline_ms", "SECRET"),
        ("max_middle_tokens", 0),
        ("max_middle_tokens", 4_097),
        ("extent", "page"),
        ("snippets", {"path": "SECRET"}),
        ("edits", {"path": "SECRET"}),
        ("drafts", ["SECRET"]),
        ("prefix", None),
        ("suffix", 3),
        ("colour", "SECRET"),
    ],
)
async def test_invalid_parameters_are_answered_with_the_fields_name(field: str, value: Any, tmp_path: Path) -> None:
    async with serving(tmp_path) as location:
        reader, writer = await asyncio.open_unix_connection(location.socket, limit=STREAM_LIMIT_BYTES)
        peer = Peer(reader, writer, notifications={PROGRESS: lambda _progress: None})
        reading = asyncio.create_task(peer.run())
        with pytest.raises(JsonRpcException) as caught:
            await peer.request(INFILL, context().to_wire() | {field: value})
        assert caught.value.code == JsonRpcInvalidParams.CODE
        assert field in caught.value.message
        assert "SECRET" not in caught.value.message
        assert Infill.from_wire(await peer.request(INFILL, context().to_wire())).finish is Finish.STABLE
        peer.close()
        await reading


async def test_definitions_are_found_while_the_model_loads(tmp_path: Path) -> None:
    query = DefinitionsQuery(text="def f(a): ...\n\nx = 1\n", names=("f", "g"), path="a.py")
    async with serving(tmp_path, load_slowly) as location, await EngineClient.attach(location) as client:
        assert (await client.definitions(query)).texts == {"f": "def f(a): ..."}
        assert (await client.status()).state is EngineState.LOADING
        bad = replace(query)
        object.__setattr__(bad, "text", None)
        with pytest.raises(EngineFault, match=r"DefinitionsQuery\.text must be str"):
            await client.definitions(bad)


async def test_bad_parameters_are_an_error_that_names_the_field(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await EngineClient.attach(location) as client:
        bad = context()
        object.__setattr__(bad, "deadline_ms", "soon")
        with pytest.raises(EngineFault, match=r"Context\.deadline_ms must be float, got str"):
            await client.infill(bad)
        assert (await client.infill(context())).finish is Finish.STABLE


async def test_fault_in_one_request_leaves_the_engine_alive(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await EngineClient.attach(location) as client:
        with pytest.raises(EngineFault, match="failed on this request"):
            await client.infill(context(path="fault"))
        assert (await client.infill(context())).finish is Finish.STABLE
        assert (await client.status()).requests["fault"] == 1


async def test_five_megabytes_pass(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await EngineClient.attach(location) as client:
        infill = await client.infill(context("x" * 5_000_000, "é" * 1_000_000))
        assert infill.text == "5000000|1000000"


async def test_hundred_thousand_lines_pass(tmp_path: Path) -> None:
    engine, lines = SteppingEngine(), [f"    value_{i} = compute(value_{i - 1}, {i})  # é\n" for i in range(100_000)]
    asked = context("".join(lines[:60_000]), "".join(lines[60_000:]))
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as client:
        assert (await client.infill(asked)).text == f"{len(asked.prefix)}|{len(asked.suffix)}"
        assert [replace(seen, document=asked.document) for seen in engine.seen] == [asked]


async def test_engine_keeps_the_documents_of_two_clients_apart(tmp_path: Path) -> None:
    engine, asked = SteppingEngine(), context(document="a.py")
    async with (
        serving(tmp_path, loads(engine)) as location,
        await EngineClient.attach(location) as one,
        await EngineClient.attach(location) as other,
    ):
        for client in (one, other, one):
            await client.infill(asked)
    first, second, third = (seen.document for seen in engine.seen)
    assert first == third != second


@pytest.mark.parametrize("text", ["\ud800", "\udfff\ud800", "a\ud83d\0\udc00", "\0", "\0\0x", "\ufeff\u2028\x85\r", ""])
async def test_any_string_passes_unchanged(text: str, tmp_path: Path) -> None:
    engine = SteppingEngine()
    asked = Context(document=text, prefix=text, suffix=text, path=text, language=text, max_middle_tokens=1)
    async with serving(tmp_path, loads(engine)) as location, await EngineClient.attach(location) as client:
        assert (await client.infill(asked)).text == f"{len(text)}|{len(text)}"
        assert [replace(seen, document=asked.document) for seen in engine.seen] == [asked]


async def test_progress_is_reported_and_requests_wait_for_the_model(tmp_path: Path) -> None:
    told: list[Progress] = []
    async with (
        serving(tmp_path, load_slowly) as location,
        await EngineClient.attach(location, on_progress=told.append) as client,
    ):
        status = await client.status()
        assert (status.state, status.model) == (EngineState.LOADING, "tiny")
        impatient = await client.infill(context(document="b.py", deadline_ms=20))
        assert (impatient.text, impatient.finish) == ("", Finish.DEADLINE)
        assert (await client.status()).state is EngineState.LOADING
        assert (await client.infill(context())).finish is Finish.STABLE
        assert (await client.wait_ready(PATIENCE_S)).model == "stepping"
    assert told[-1] == Progress(state=EngineState.READY, percent=100)
    percents = [progress.percent for progress in told]
    assert percents == sorted(percents)


async def test_load_failure_is_reported_to_every_client(tmp_path: Path) -> None:
    message = "config.json: is missing; download the model again"
    async with serving(tmp_path, load_failing) as location, await EngineClient.attach(location) as client:
        with pytest.raises(EngineUnavailable, match=message):
            await client.wait_ready(PATIENCE_S)
        with pytest.raises(EngineFault, match=message):
            await client.infill(context())
        status = await client.status()
        assert (status.state, status.message) == (EngineState.FAILED, message)


async def test_wait_ready_times_out(tmp_path: Path) -> None:
    async with serving(tmp_path, load_slowly) as location, await EngineClient.attach(location) as client:
        with pytest.raises(EngineUnavailable, match=r"the model was not loaded within 0\.01 s; see"):
            await client.wait_ready(0.01)


async def test_stop_engine_answers_outstanding_requests_and_notifies_clients(tmp_path: Path) -> None:
    engine, closed = SteppingEngine(), asyncio.Event()
    async with serving(tmp_path, loads(engine)) as location:
        client = await EngineClient.attach(location, on_closed=closed.set)
        pending = asyncio.create_task(client.infill(context(steps=LONG)))
        await until(lambda: engine.denoising_steps > 0)
        await client.stop_engine()
        assert (await asyncio.wait_for(pending, PATIENCE_S)).finish is Finish.CANCELLED
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        with pytest.raises(EngineUnavailable, match=r"has ended; start one with: dgemma-engine start --model tiny$"):
            await client.status()
        assert not location.socket.exists()


async def test_close_does_not_call_on_closed(tmp_path: Path) -> None:
    closed = asyncio.Event()
    async with serving(tmp_path) as location:
        await (await EngineClient.attach(location, on_closed=closed.set)).close()
        assert not closed.is_set()


async def test_no_source_text_in_the_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tmp_path) as location, await EngineClient.attach(location) as client:
        await client.infill(context("TOP_SECRET"))
        with pytest.raises(EngineFault):
            await client.infill(context("TOP_SECRET", path="fault"))
        bad = context("TOP_SECRET")
        object.__setattr__(bad, "seed", "TOP_SECRET")
        with pytest.raises(EngineFault):
            await client.infill(bad)
        cancelled = asyncio.create_task(client.infill(context("TOP_SECRET", steps=LONG)))
        await asyncio.sleep(0.05)
        cancelled.cancel()
    assert "listens on" in caplog.text
    assert "TOP_SECRET" not in caplog.text


async def test_idle_engine_exits_and_a_used_one_does_not(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_s=0.3) as location:
        async with await EngineClient.attach(location) as client:
            await asyncio.sleep(0.5)
            assert (await client.status()).clients == 1
        await until(lambda: not location.socket.exists())


async def test_failed_engine_without_clients_exits(tmp_path: Path) -> None:
    async with serving(tmp_path, load_failing, failed_linger_s=0.1) as location:
        await until(lambda: not location.socket.exists())
