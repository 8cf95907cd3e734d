"""After a clock change or a sleep of the machine, requests get their full time and a live connection."""

from __future__ import annotations

import pytest
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.http_channel import HttpChannel
from dgemma_engine.remote.loading_watch import LoadingWatch
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.http_api.running_server import running_server
from tests.engine.remote.elsewhere import network_to, question
from tests.engine.remote.scripted_engine import scripted_engine


async def test_machine_that_slept_gets_new_connections() -> None:
    async with running_server() as server, network_to(server.port) as network:
        wall_s = 0.0
        channel = HttpChannel(RemoteLocation(url=f"http://127.0.0.1:{network.port}"), wall_clock=lambda: wall_s)
        await channel.get("/v1/engine")
        await channel.get("/v1/engine")
        assert network.num_connections == 1
        # The monotonic clock stood still during the sleep, and connections to the engine are dead.
        network.to_engine = lambda data: b""
        wall_s, old = 60.0, network.to_engine
        network.to_engine = lambda data: data if network.num_connections > 1 else old(data)
        assert (await channel.get("/v1/engine")).status == 200
        assert network.num_connections == 2
        await channel.close()


@pytest.mark.parametrize("jump_s", [-7 * 3_600.0, 7 * 3_600.0])
async def test_clock_change_by_hours_costs_one_connection_and_no_answer(jump_s: float) -> None:
    async with running_server() as server, network_to(server.port) as network:
        wall_s = 1e9
        channel = HttpChannel(RemoteLocation(url=f"http://127.0.0.1:{network.port}"), wall_clock=lambda: wall_s)
        assert (await channel.get("/v1/engine")).status == 200
        wall_s += jump_s
        for _ in range(3):
            assert (await channel.get("/v1/engine")).status == 200
        assert network.num_connections == 2
        await channel.close()


async def test_requests_succeed_after_one_interrupted_by_sleep() -> None:
    async with scripted_engine() as engine:
        clock = SleepingClock()
        network, back_off = NetworkTime(), BackOff(clock)
        channel = HttpChannel(RemoteLocation(url=f"http://127.0.0.1:{engine.port}"), wall_clock=clock)
        watch = LoadingWatch(channel, network, back_off, on_progress=lambda _: None, on_lost=lambda _: None)
        remote = RemoteEngine(channel, watch, network, back_off, clock=clock)
        assert (await remote.infill(question())).text == "alpha"
        # During a request whose answer comes after the sleep.
        clock.sleeps_s = 5 * 3_600.0
        assert (await remote.infill(question())).text == "alpha"
        assert (await remote.infill(question())).text == "alpha"
        assert network.remaining_ms(3_000) > 2_500, "the sleep must not count as network time"
        await remote.close()


class SleepingClock:
    """Advances slightly at each reading, and once by the length of a sleep."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.sleeps_s = 0.0
        self.num_looks = 0

    def __call__(self) -> float:
        self.now_s += 0.001
        if self.sleeps_s:
            self.num_looks += 1
        if self.num_looks == 4:
            self.now_s += self.sleeps_s
            self.sleeps_s, self.num_looks = 0.0, 0
        return self.now_s
