"""The application over the daemon's own worker in one process: no socket to an engine, no server, as in a replica."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.http_api.app import create_app
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.messages import Context, EngineState, Infill, OnDraft
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.serving.device_thread import DeviceThread

from tests.engine.fake_engine import SteppingEngine, until
from tests.lsp.engine_process import STATUS_NOW


class Worker:
    """An `InfillEngine` over a device thread."""

    def __init__(self, device: DeviceThread) -> None:
        self._device = device

    @property
    def status(self) -> ConnectionStatus:
        is_ready = self._device.state in (EngineState.READY, EngineState.BUSY)
        return ConnectionStatus(state=ConnectionState.READY if is_ready else ConnectionState.LOADING)

    def wake(self) -> None:
        """It is awake as long as its process is."""

    async def about(self) -> Status | None:
        return replace(STATUS_NOW, model="stepping")

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        job = self._device.submit(1, context, on_draft)
        try:
            return await asyncio.wrap_future(job.answer)
        except asyncio.CancelledError:
            self._device.withdraw(job)
            raise


@pytest.fixture
def engine() -> SteppingEngine:
    return SteppingEngine(step_s=0.01)


@pytest.fixture
def device(engine: SteppingEngine) -> Iterator[DeviceThread]:
    device = DeviceThread(
        lambda _report: engine, clock=time.monotonic, on_progress=lambda _progress: None, on_device_lost=lambda: None
    )
    device.start()
    yield device
    device.stop()
    assert device.join(10)


async def asked(app: Any, body: dict[str, Any], leaving: asyncio.Event) -> list[dict[str, Any]]:
    """Returns what the application sends for one request to `/infill`, whose client leaves at the event."""
    data = json.dumps(body).encode()
    coming = [{"type": "http.request", "body": data, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if coming:
            return coming.pop()
        await leaving.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": f"{len(data)}"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/infill",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return sent


async def test_request_is_answered(device: DeviceThread) -> None:
    app = create_app(Worker(device), HttpSettings())
    await until(lambda: device.state is EngineState.READY)
    start, body = await asked(app, {"input_prefix": "x = ", "input_suffix": "\n", "n_predict": 2}, asyncio.Event())
    assert (start["status"], json.loads(body["body"])["content"]) == (200, "4|1")


async def test_client_that_leaves_ends_the_work(device: DeviceThread, engine: SteppingEngine) -> None:
    app, leaving = create_app(Worker(device), HttpSettings()), asyncio.Event()
    await until(lambda: device.state is EngineState.READY)
    asking = asyncio.create_task(asked(app, {"input_prefix": "x = ", "input_suffix": "", "n_predict": 256}, leaving))
    await until(lambda: bool(engine.runs) and engine.runs[0].num_steps > 0)
    leaving.set()
    assert await asking == []
    await until(lambda: engine.runs[0].ended)
    assert engine.runs[0].num_steps < 256 and engine.runs[0].num_after_cancel <= 1
