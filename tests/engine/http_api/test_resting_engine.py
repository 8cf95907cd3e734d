from __future__ import annotations

from typing import Any

from dgemma_engine.engine_client.connection_status import ConnectionState
from dgemma_engine.http_api.engine_lanes import EngineLanes
from dgemma_engine.http_api.resting_engine import RestingEngine
from dgemma_engine.protocol.messages import Context, Infill

from tests.engine.http_api.running_server import until
from tests.lsp.fake_engine import FakeConnector

CONTEXT = Context(document="d", prefix="x = ", suffix="")


async def test_unused_connection_is_given_up_and_the_next_completion_makes_it_again() -> None:
    now_s = 0.0

    def clock() -> float:
        return now_s

    fake = FakeConnector(answers={"x = ": "1"})
    said: list[Any] = []
    lanes = EngineLanes(fake.connect, num_lanes=2, on_status=said.append, on_fault=said.append, clock=clock)
    engine = RestingEngine(lanes, fake.connect, rest_s=60, clock=clock)
    assert isinstance(await engine.infill(CONTEXT), Infill)
    now_s = 59
    await engine.rest_if_unused()
    assert not fake.engines[0].closed
    now_s = 60
    await engine.rest_if_unused()
    await until(lambda: fake.engines[0].closed)
    engine.wake()
    status = await engine.about()
    assert (status and status.model, engine.status.state) == ("large", ConnectionState.READY)
    assert len(fake.engines) == 1
    assert isinstance(await engine.infill(CONTEXT), Infill)
    assert len(fake.engines) == 2
    await lanes.close()
