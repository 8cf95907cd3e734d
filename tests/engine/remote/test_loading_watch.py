"""Progress of a remote engine: a lost connection while it loads, a busy server, connections that are kept open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.engine_client.retry_policy import RetryPolicy
from dgemma_engine.errors import NotNow, OutOfReach
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Infill
from dgemma_engine.protocol.status_messages import Progress
from dgemma_engine.remote import loading_watch
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.http_channel import HttpChannel, Reply
from dgemma_engine.remote.loading_watch import LoadingWatch
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.http_api.running_server import READY, AnsweringEngine, running_server, until
from tests.engine.remote.elsewhere import network_to, question

LOADING = replace(READY, state=ConnectionState.LOADING, percent=40)
FAILED = replace(READY, state=ConnectionState.FAILED, percent=0)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = LoadingWatch.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "poll_s", 0.01)


class Linked:
    """A language server's connection to an engine that loads, through a network."""

    def __init__(self, engine: AnsweringEngine, network: Any) -> None:
        self.engine, self.network = engine, network
        self.told: list[ConnectionStatus] = []
        self.connection = EngineConnection(
            partial(connect_remote, RemoteLocation(url=f"http://127.0.0.1:{network.port}")),
            on_status=self.told.append,
            on_fault=self.told.append,
            clock=time.monotonic,
            policy=RetryPolicy(connect_ms=5_000, first_pause_s=0.01, longest_pause_s=0.01),
        )

    @property
    def state(self) -> ConnectionState:
        return self.connection.status.state


@asynccontextmanager
async def loading() -> AsyncIterator[Linked]:
    engine = AnsweringEngine()
    engine.status = LOADING
    async with running_server(engine) as server, network_to(server.port) as network:
        linked = Linked(engine, network)
        answer = await linked.connection.infill(question())
        assert isinstance(answer, ConnectionStatus) and answer.state is ConnectionState.LOADING
        try:
            yield linked
        finally:
            await linked.connection.close()


async def test_connection_that_breaks_while_it_loads_is_reported_as_a_state_and_made_again() -> None:
    async with loading() as linked:
        linked.network.from_engine = lambda _data: None
        await until(lambda: linked.state is not ConnectionState.LOADING)
        assert linked.told[-1].state is ConnectionState.ABSENT
        assert "broke the connection off before its answer, twice" in linked.told[-1].message
        linked.network.from_engine = lambda data: data
        linked.engine.status = READY
        await asyncio.sleep(0.02)
        assert isinstance(await linked.connection.infill(question()), Infill)
        assert all(status.state is not ConnectionState.FAILED for status in linked.told), "a status, not an error"


async def test_load_failure_is_reported_in_its_own_words_and_ends_connections() -> None:
    async with loading() as linked:
        linked.engine.status = FAILED
        await until(lambda: linked.state is not ConnectionState.LOADING)
        assert linked.told[-1].state is ConnectionState.ABSENT
        assert "its engine cannot load a model" in linked.told[-1].message
        await until(lambda: not linked.network._open)


async def test_late_progress_of_an_abandoned_connection_is_ignored() -> None:
    tell: list[Any] = []

    class Unreachable(AnsweringEngine):
        async def infill(self, *_arguments: Any) -> Any:
            raise OutOfReach("gpu.example does not answer")

        async def close(self) -> None:
            tell[0](Progress(state=loading_watch.EngineState.READY, percent=100))

    async def connect(*, on_progress: Any, on_closed: Any) -> Any:
        tell.append(on_progress)
        return Unreachable()

    connection = EngineConnection(connect, on_status=lambda _: None, on_fault=lambda _: None, clock=time.monotonic)
    await connection.infill(question())
    await asyncio.sleep(0)
    assert connection.status.state is ConnectionState.ABSENT
    await connection.close()


class FakeChannel:
    """Answers status requests with the replies of a test, each once `gate` is open."""

    place = "gpu.example"

    def __init__(self, *replies: Reply) -> None:
        self.replies = [*replies]
        self.num_open = self.num_asked = self.most_open = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, _path: str) -> Reply:
        self.num_open, self.num_asked = self.num_open + 1, self.num_asked + 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            await self.gate.wait()
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        finally:
            self.num_open -= 1


def about(state: str, **other: Any) -> Reply:
    values: dict[str, Any] = {"protocol": PROTOCOL, "state": state, "percent": 40, "status": None}
    return Reply(status=200, retry_after_s=0, body=values | other)


def busy(retry_after_s: float) -> Reply:
    return Reply(status=429, retry_after_s=retry_after_s, body=None)


def never_lost(why: OutOfReach) -> None:
    raise AssertionError(why)


@asynccontextmanager
async def watching(
    channel: Any, back_off: BackOff, lost: Callable[[OutOfReach], None] = never_lost
) -> AsyncIterator[tuple[LoadingWatch, list[Progress]]]:
    progress: list[Progress] = []
    watch = LoadingWatch(channel, NetworkTime(), back_off, on_progress=progress.append, on_lost=lost)
    try:
        yield watch, progress
    finally:
        await watch.close()


async def test_all_connections_are_used_again_in_each_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_watch, "_IDLE_S", 0.01)
    channel = FakeChannel(about("ready"))
    async with watching(channel, BackOff(time.monotonic)) as (watch, _):
        await watch.start()
        for _ in range(3):
            channel.gate.clear()
            await until(lambda: channel.num_open == 3)
            channel.gate.set()
            await until(lambda: channel.num_open == 0)
        # A request in progress uses one of them.
        channel.gate.clear()
        channel.num_open = 1
        await until(lambda: channel.num_open == 3)
    assert channel.most_open == 3


async def test_lost_engine_is_reported_before_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_watch, "_IDLE_S", 0.01)
    gone = Reply(status=502, retry_after_s=0, body=None)
    channel, told = FakeChannel(*[about("ready")] * 4, gone), list[OutOfReach]()
    async with watching(channel, BackOff(time.monotonic), told.append) as (watch, _):
        await watch.start()
        await until(lambda: told != [])
        num_asked = channel.num_asked
        await asyncio.sleep(0.03)
        assert channel.num_asked == num_asked, "the lost connection is not used again"
    assert len(told) == 1
    assert "a proxy on the way does not reach the engine" in str(told[0])


async def test_engine_that_answers_one_of_several_status_requests_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_watch, "_IDLE_S", 0.01)
    gone = Reply(status=502, retry_after_s=0, body=None)
    channel = FakeChannel(about("ready"), *[gone, about("ready"), gone] * 3, about("ready"))
    async with watching(channel, BackOff(time.monotonic)) as (watch, _):
        await watch.start()
        await until(lambda: channel.num_asked > 12)


async def test_busy_server_gets_neither_status_nor_completion_requests() -> None:
    now_s = 100.0
    channel = FakeChannel(about("ready"), busy(45))
    back_off = BackOff(lambda: now_s)
    async with watching(channel, back_off) as (watch, _):
        await watch.start()
        await until(lambda: back_off.left_s == 45)
        num_asked = channel.num_asked
        with pytest.raises(NotNow, match="has too much to do; it can be asked again in 45 s"):
            await watch.status()
        assert channel.num_asked == num_asked


async def test_server_that_is_busy_while_its_engine_loads_is_not_lost() -> None:
    now_s = 100.0
    channel = FakeChannel(*[about("loading")] * 4, busy(0), about("ready"))
    back_off = BackOff(lambda: now_s)
    async with watching(channel, back_off) as (watch, progress):
        await watch.start()
        await until(lambda: back_off.left_s > 0)
        now_s += 60
        await until(lambda: progress[-1].percent == 100)


async def test_client_waits_for_an_engine_on_a_busy_server() -> None:
    now_s = 100.0
    channel = FakeChannel(busy(0), about("failed"))
    back_off = BackOff(lambda: now_s)
    async with watching(channel, back_off) as (watch, _):
        waiting = asyncio.create_task(watch.wait_ready(10))
        await until(lambda: channel.num_asked == 1)
        now_s += 60
        with pytest.raises(Exception, match="cannot load a model"):
            await waiting


async def test_pause_outlives_the_connection() -> None:
    async with running_server() as server:
        location = RemoteLocation(url=server.url)
        back_off = BackOff(time.monotonic)
        back_off.busy(45)
        connect = partial(connect_remote, location, back_off=back_off, on_progress=lambda _: None)
        with pytest.raises(NotNow, match="has too much to do"):
            await connect(on_closed=lambda _why: None)


async def test_requests_in_progress_are_counted() -> None:
    async with running_server() as server, network_to(server.port) as network:
        network.to_engine = lambda _data: b""
        channel = HttpChannel(RemoteLocation(url=f"http://127.0.0.1:{network.port}"))
        asking = asyncio.create_task(channel.get("/v1/engine"))
        await until(lambda: channel.num_open == 1)
        asking.cancel()
        await until(lambda: channel.num_open == 0)
        await channel.close()
