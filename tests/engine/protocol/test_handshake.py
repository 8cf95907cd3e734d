"""Engines and clients of different versions: the real daemon with another protocol number, and one that sends none."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.cli import main
from dgemma_engine.errors import NewerEngine, OlderEngine
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import Peer
from dgemma_engine.ipc.lock_file import holder_pid
from dgemma_engine.protocol import definition_messages, messages, status_messages, trace_messages
from dgemma_engine.protocol.codec import Message
from dgemma_engine.protocol.handshake import PROTOCOL, Hello
from dgemma_engine.protocol.status_messages import PROGRESS, STATUS, STOP, EngineState, Progress
from dgemma_engine.serving import daemon

from tests.engine.fake_engine import PATIENCE_S, command, context, location_in, serving

FINGERPRINT = "8: 43916a1219b7"


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons of this process are of the version before this one."""
    monkeypatch.setattr(daemon, "PROTOCOL", PROTOCOL - 1)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons of this process are of the version after this one."""
    monkeypatch.setattr(daemon, "PROTOCOL", PROTOCOL + 1)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Kills the engine process that a test started."""
    yield
    pid = holder_pid(location_in(tmp_path).lock)
    if pid is not None and pid != os.getpid():
        os.kill(pid, signal.SIGKILL)


async def attach_or_start(location: EngineLocation) -> EngineClient:
    return await EngineClient.attach_or_start(location, command=command(location.directory), timeout_s=PATIENCE_S)


def test_changed_messages_need_a_new_protocol_number() -> None:
    """Fails where a message changed without a new protocol number: an older running engine would refuse it."""
    types = {
        name: value
        for module in (definition_messages, messages, status_messages, trace_messages)
        for name, value in vars(module).items()
        if isinstance(value, type) and (issubclass(value, Message) or dataclasses.is_dataclass(value))
    }
    fields = sorted((name, f.name, str(f.type)) for name, t in types.items() if t is not Message for f in _fields(t))
    said = f"{PROTOCOL}: {hashlib.sha256(repr(fields).encode()).hexdigest()[:12]}"
    assert said == FINGERPRINT, "a message has changed: raise handshake.PROTOCOL and set FINGERPRINT to this value"


def _fields(of: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(of)


def test_hello_of_any_version_is_read() -> None:
    for wire in (None, [], {}, {"protocol": "1"}, {"protocol": None}):
        assert Hello.from_wire(wire) == Hello(protocol=0)
    assert Hello.from_wire({"protocol": 7, "of": "later"}) == Hello(protocol=7)
    assert Hello.from_wire(Hello(protocol=3).to_wire()) == Hello(protocol=3)


async def test_engine_of_this_version_is_used(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await attach_or_start(location) as client:
        assert client.hello == Hello(protocol=PROTOCOL)
        assert (await client.status()).pid == os.getpid()


@pytest.mark.usefixtures("older")
async def test_older_engine_is_refused_in_one_sentence(tmp_path: Path) -> None:
    async with serving(tmp_path) as location:
        with pytest.raises(OlderEngine, match=r"older version; .*dgemma-engine stop") as refused:
            await EngineClient.attach(location)
        assert "\n" not in str(refused.value)
        async with await EngineClient.attach_any(location) as client:
            assert (await client.status()).clients == 1, "the refused connection is closed"


@pytest.mark.usefixtures("older")
async def test_unused_older_engine_is_replaced(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await attach_or_start(location) as client:
        assert client.hello == Hello(protocol=PROTOCOL)
        await client.wait_ready(PATIENCE_S)
        assert (await client.infill(context("ab", "c"))).text == "2|1"
        assert (await client.status()).pid != os.getpid()
        await client.stop_engine()


@pytest.mark.usefixtures("older")
async def test_older_engine_in_use_stays(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await EngineClient.attach_any(location) as other:
        refusals: list[str] = []
        for _ in range(2):
            with pytest.raises(OlderEngine) as refused:
                await attach_or_start(location)
            refusals.append(str(refused.value))
        assert refusals[0] == refusals[1], "the same error is reported once"
        assert (await other.infill(context("ab", "c"))).text == "2|1"


@pytest.mark.usefixtures("newer")
async def test_newer_engine_is_never_replaced(tmp_path: Path) -> None:
    """Windows of two versions would end each other's engines in turn."""
    async with serving(tmp_path) as location:
        with pytest.raises(NewerEngine, match=r"newer version; .*dgemma-engine stop"):
            await attach_or_start(location)
        async with await EngineClient.attach_any(location) as client:
            assert (await client.status()).pid == os.getpid()


@pytest.mark.usefixtures("older")
async def test_two_windows_of_the_new_version_replace_one_old_engine(tmp_path: Path) -> None:
    async with serving(tmp_path) as location:
        both = await asyncio.gather(attach_or_start(location), attach_or_start(location))
        pids = {(await client.status()).pid for client in both}
        assert len(pids) == 1
        assert pids != {os.getpid()}
        await both[0].stop_engine()
        for client in both:
            await client.close()


async def test_engine_without_a_protocol_number_is_older_even_with_an_unreadable_status(tmp_path: Path) -> None:
    location, stopped = location_in(tmp_path), asyncio.Event()
    progress = Progress(state=EngineState.READY, percent=100).to_wire()

    async def status(_params: Any) -> dict[str, Any]:
        return {"clients": 1, "of": "long ago"}

    async def stop(_params: Any) -> None:
        server.close()
        location.socket.unlink()
        stopped.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, requests={STATUS: status, STOP: stop})
        peer.notify(PROGRESS, progress)
        await peer.run()

    location.prepare()
    server = await asyncio.start_unix_server(serve, location.socket)
    with pytest.raises(OlderEngine):
        await EngineClient.attach(location)
    async with await attach_or_start(location) as client:
        assert stopped.is_set()
        assert client.hello == Hello(protocol=PROTOCOL)
        await client.stop_engine()


@pytest.mark.usefixtures("older")
async def test_status_command_reports_the_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path))
    async with serving(tmp_path):
        assert await asyncio.to_thread(main, ["status"]) == 0
        out = capsys.readouterr().out
        assert "the running engine is of an older version" in out
