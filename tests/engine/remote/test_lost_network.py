"""A connection that breaks shortly before a request's deadline, and gets no answer afterwards."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.remote import fault_sentences, remote_engine
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.http_channel import Broken, Reply
from dgemma_engine.remote.loading_watch import LoadingWatch
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.remote_engine import RemoteEngine

from tests.engine.remote.elsewhere import question

DEADLINE_S = question().deadline_ms / 1_000
ROUND_TRIP_MS = 20.0


class BreakingChannel:
    """Breaks the first request after `breaks_after_s` seconds, and answers nothing from then on."""

    place, session = "gpu.example", "window"

    def __init__(self, breaks_after_s: float) -> None:
        self.breaks_after_s = breaks_after_s
        self.now_s = 100.0
        self.num_asked = 0

    def clock(self) -> float:
        return self.now_s

    async def post(self, _path: str, _body: bytes) -> Reply:
        self.num_asked += 1
        if self.num_asked == 1:
            self.now_s += self.breaks_after_s
            raise Broken("half an answer")
        await asyncio.Event().wait()
        raise AssertionError

    def no_answer(self) -> str:
        return fault_sentences.no_answer(self.place, is_proxied=False)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("breaks_after_s", "num_asked", "sentence"),
    [
        (DEADLINE_S - 0.1, 2, "gpu.example does not answer: the network is down"),
        (DEADLINE_S - 0.01, 1, "gpu.example broke the connection off before its answer; the next request tries again"),
        (DEADLINE_S + 0.5, 1, "gpu.example broke the connection off before its answer; the next request tries again"),
    ],
)
async def test_break_near_the_deadline_is_reported_as_a_lost_network(
    monkeypatch: pytest.MonkeyPatch, breaks_after_s: float, num_asked: int, sentence: str
) -> None:
    # The extra time for a busy engine, which must not be used after a break.
    monkeypatch.setattr(remote_engine, "_GRACE_S", 60.0)
    channel: Any = BreakingChannel(breaks_after_s)
    network, back_off = NetworkTime(), BackOff(channel.clock)
    network.learn(ROUND_TRIP_MS, 0)
    watch = LoadingWatch(channel, network, back_off, on_progress=lambda _: None, on_lost=lambda _: None)

    async def connect(**_callbacks: Any) -> RemoteEngine:
        return RemoteEngine(channel, watch, network, back_off, clock=channel.clock)

    connection = EngineConnection(connect, on_status=lambda _: None, on_fault=lambda _: None, clock=time.monotonic)
    answer = await connection.infill(question())
    assert isinstance(answer, ConnectionStatus)
    assert answer.state is ConnectionState.ABSENT
    assert answer.message.startswith(sentence)
    assert channel.num_asked == num_asked
    assert connection.status.state is ConnectionState.ABSENT, "the next request must not wait for the lost connection"
    await connection.close()
