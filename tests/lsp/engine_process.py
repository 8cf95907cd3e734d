"""`FakeEngine` on a real socket, used through the real client: for tests of the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import Peer
from dgemma_engine.protocol.handshake import HELLO, PROTOCOL, Hello
from dgemma_engine.protocol.messages import INFILL, Context, Finish, Infill
from dgemma_engine.protocol.status_messages import PROGRESS, STATUS, EngineState, Progress, Status
from dgemma_engine.protocol.trace_messages import TRACE

from tests.lsp.fake_engine import FakeEngine
from tests.lsp.traces import made_trace

STATUS_NOW = Status(
    state=EngineState.READY,
    percent=100,
    message="",
    model="fake",
    model_path="/models/fake",
    device="cpu",
    pid=4_242,
    version="0+unknown",
    uptime_s=1.0,
    memory_bytes=1 << 30,
    device_memory_bytes=0,
    clients=1,
    requests={},
    denoising_steps=0,
    stages={},
)


@asynccontextmanager
async def serving(
    location: EngineLocation, *, answers: Mapping[str, str], protocol: int = PROTOCOL, is_stopped: bool = False
) -> AsyncGenerator[FakeEngine]:
    """Answers on the socket of `location` for as long as the block lasts, as an engine of that protocol.

    Args:
        location: where clients find the engine.
        answers: see `FakeEngine`.
        protocol: that the engine speaks.
        is_stopped: whether every request is cancelled, as by an engine that is just stopped.
    """
    engine = FakeEngine(answers=answers)

    async def infill(params: Any) -> dict[str, Any]:
        if is_stopped:
            return Infill(text="", finish=Finish.CANCELLED).to_wire()
        return (await engine.infill(Context.from_wire(params))).to_wire()

    async def trace(params: Any) -> dict[str, Any]:
        if is_stopped:
            cancelled = Infill(text="", finish=Finish.CANCELLED)
            return replace(made_trace(text=""), infill=cancelled).to_wire()
        found = await engine.infill(Context.from_wire(params))
        return made_trace(text=found.text).to_wire()

    async def status(params: Any) -> dict[str, Any]:
        return STATUS_NOW.to_wire()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, requests={INFILL: infill, TRACE: trace, STATUS: status})
        peer.notify(HELLO, Hello(protocol=protocol).to_wire())
        peer.notify(PROGRESS, Progress(state=EngineState.READY, percent=100).to_wire())
        await peer.run()

    location.prepare()
    server = await asyncio.start_unix_server(connected, path=str(location.socket))
    try:
        yield engine
    finally:
        server.close()
