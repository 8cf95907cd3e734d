"""`dgemma-engine serve --share` with the real engine: what it prints is all that another machine needs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
from dgemma_engine.errors import OutOfReach
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.protocol.definition_messages import DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Draft, Finish
from dgemma_engine.protocol.status_messages import EngineState
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.commands.test_serve import PREFIX, Program

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ASKED = Context(document="file:///a.py", prefix=PREFIX, suffix="\n", path="a.py", language="python", deadline_ms=60_000)
# A client waits a little before it sends a cancellation.
SENT_S = 0.2
FILL = replace(ASKED, document="file:///a.py#fill", on_demand=True, max_middle_tokens=128)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("rt"), "--share")
    try:
        program.wait_until_loaded()
        yield program
    finally:
        program.end()


@pytest.fixture(scope="module")
def location(program: Program, tmp_path_factory: pytest.TempPathFactory) -> RemoteLocation:
    """Builds a location from the printed lines."""
    assert program.process.stdout is not None
    lines = [program.process.stdout.readline() for _ in range(10)]
    assert lines[0] == f"address: {program.url}\n"
    settings = json.loads("{" + next(line for line in lines if '"dgemma.engine.url"' in line) + "}")
    file = tmp_path_factory.mktemp("keys") / "key"
    file.write_text(lines[1].split()[1])
    return RemoteLocation(url=settings["dgemma.engine.url"], key_file=str(file))


async def test_answers_are_those_of_the_socket(program: Program, location: RemoteLocation) -> None:
    remote = await connect_remote(location, on_progress=lambda _: None, on_closed=lambda _why: None)
    local = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(program.directory)}, model="tiny")
    async with await EngineClient.attach(local) as client:
        for asked in (ASKED, FILL):
            here, there = await client.infill(asked), await remote.infill(asked)
            assert (here.text, here.candidates, here.finish) == (there.text, there.candidates, there.finish)
            assert here.text
        here, there = await client.trace(ASKED), await remote.trace(ASKED)
        assert here.infill.text == there.infill.text and len(here.canvases) == len(there.canvases) > 0
        query = DefinitionsQuery(text="def area(w, h):\n    return w * h\n", names=("area",), path="a.py")
        assert await client.definitions(query) == await remote.definitions(query)
        assert (await remote.status()).model == (await client.status()).model
    await remote.close()


async def test_drafts_and_cancellation_reach_the_real_engine(program: Program, location: RemoteLocation) -> None:
    remote = await connect_remote(location, on_progress=lambda _: None, on_closed=lambda _why: None)
    drafts: list[Draft] = []
    infill = await remote.infill(replace(ASKED, document="drafts", seed=3), drafts.append)
    assert drafts and infill.finish is not Finish.CANCELLED
    # A run of this model may be over before a cancellation is sent, so the engine stands still until then.
    engine = holder_pid(program.lock)
    assert engine is not None
    status = await remote.status()
    for seed in range(5, 40):
        begun = asyncio.Event()
        long = replace(FILL, document="long", max_middle_tokens=4_096, seed=seed)
        asking = asyncio.create_task(remote.infill(long, lambda _draft, begun=begun: begun.set()))
        await asyncio.wait([asking, asyncio.ensure_future(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
        os.kill(engine, signal.SIGSTOP)
        try:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await asyncio.sleep(SENT_S)
        finally:
            os.kill(engine, signal.SIGCONT)
        while (status := await remote.status()).state is EngineState.BUSY:
            await asyncio.sleep(0.02)
        if status.requests["cancelled"]:
            break
    assert status.requests["cancelled"] == 1
    await remote.close()


async def test_connection_without_the_key_is_refused(location: RemoteLocation) -> None:
    with pytest.raises(OutOfReach, match="does not accept the key"):
        await connect_remote(replace(location, key_file=""), on_progress=lambda _: None, on_closed=lambda _why: None)
