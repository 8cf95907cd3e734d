from __future__ import annotations

import asyncio
from typing import Any

from dgemma_engine.engine_client.connection_status import ConnectionState
from dgemma_engine.http_api.engine_lanes import EngineLanes
from dgemma_engine.ipc.client import EngineUnavailable
from dgemma_engine.protocol.messages import Context, Infill

from tests.engine.http_api.running_server import until
from tests.lsp.fake_engine import FakeConnector


def context(line: str, document: str) -> Context:
    return Context(document=document, prefix=line, suffix="")


def lanes_to(connect: Any, said: list[Any]) -> EngineLanes:
    return EngineLanes(connect, num_lanes=2, on_status=said.append, on_fault=said.append, clock=lambda: 0.0)


async def test_second_document_gets_a_connection_of_its_own_and_a_newer_request_that_of_its_document() -> None:
    fake = FakeConnector(answers={"x = ": "1"})
    lanes = lanes_to(fake.connect, [])
    assert isinstance(await lanes.infill(context("x = ", "a")), Infill)
    assert isinstance(await lanes.infill(context("x = ", "b")), Infill)
    assert len(fake.engines) == 1
    works = [asyncio.create_task(lanes.infill(context("SLOW", "a")))]
    await until(lambda: len(fake.engines[0].contexts) == 3)
    works.append(asyncio.create_task(lanes.infill(context("SLOW", "b"))))
    await until(lambda: len(fake.engines) == 2 and len(fake.engines[1].contexts) == 1)
    assert isinstance(await lanes.infill(context("x = ", "b")), Infill)
    assert [one.document for one in fake.engines[1].contexts] == ["b", "b"]
    for work in works:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)
    await lanes.close()
    assert [engine.closed for engine in fake.engines] == [True, True]


async def test_further_connection_that_cannot_be_made_leaves_its_requests_to_the_first() -> None:
    fake = FakeConnector(answers={"x = ": "1"})

    async def connect(**listeners: Any) -> Any:
        if fake.engines:
            raise EngineUnavailable("no more")
        return await fake.connect(**listeners)

    said: list[Any] = []
    lanes = lanes_to(connect, said)
    work = asyncio.create_task(lanes.infill(context("SLOW", "a")))
    await until(lambda: len(fake.engines) == 1 and len(fake.engines[0].contexts) == 1)
    assert isinstance(await lanes.infill(context("x = ", "b")), Infill)
    assert ConnectionState.FAILED not in [status.state for status in said]
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await lanes.close()
