"""The HTTP API under a real uvicorn on a free port, over an engine that answers at once; and a client of raw bytes.

Words in the cursor's line: SLOW works until cancelled, LATER answers after 20 ms, CRASH raises, LOST loses the engine,
NOTHING has an empty answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.http_api.app import create_app
from dgemma_engine.http_api.http_server import HttpServer
from dgemma_engine.http_api.http_settings import BindAddress, HttpSettings
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import (
    Candidate,
    CandidateSource,
    Context,
    Draft,
    DraftSpan,
    Finish,
    Infill,
    OnDraft,
)
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.protocol.trace_messages import Trace

from tests.lsp.engine_process import STATUS_NOW

READY = ConnectionStatus(state=ConnectionState.READY, percent=100)
FREE_PORT = HttpSettings(bind=BindAddress(port=0))


class AnsweringEngine:
    """An `CompletionEngine` without a model."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts or ("alpha + beta",)
        self.covered = 0
        self.is_cut = False
        self.status = READY
        self.contexts: list[Context] = []
        self.num_cancelled = 0
        self.num_woken = 0
        self.step_s = 0.0

    def wake(self) -> None:
        self.num_woken += 1

    async def about(self) -> Status | None:
        is_ready = self.status.state is ConnectionState.READY
        return replace(STATUS_NOW, model="/home/someone/models/fake") if is_ready else None

    async def definitions(self, query: DefinitionsQuery) -> Definitions | None:
        return Definitions(texts={name: f"def {name}(): ..." for name in query.names})

    async def trace(self, context: Context) -> Trace | ConnectionStatus:
        infill = await self.infill(context)
        if isinstance(infill, ConnectionStatus):
            return infill
        return Trace(
            infill=infill, num_prompt=1, begun="", canvases=(), writings=(), candidates=(), threshold=0.5,
            is_calibrated=False, tokens={}, marks={}, num_left_out=0,
        )  # fmt: skip

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        self.contexts.append(context)
        line = context.prefix.rpartition("\n")[2]
        if on_draft is not None:
            for step in (1, 2):
                spans = (DraftSpan(text="alpha", confidence=0.5, settled=step > 1),)
                on_draft(Draft(request="1", step=step, text="alpha", spans=spans))
                await asyncio.sleep(self.step_s)
        if "SLOW" in line:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        if "LATER" in line:
            await asyncio.sleep(0.02)
        if "CRASH" in line:
            raise RuntimeError(f"what no log may hold: {context.prefix}")
        if "LOST" in line:
            return ConnectionStatus(
                state=ConnectionState.FAILED, message="see the log at /home/someone/secret/engine.log"
            )
        if self.status.state is not ConnectionState.READY:
            return self.status
        if "NOTHING" in line:
            return Infill(text="", finish=Finish.EMPTY, timings_ms={"total": 1.0})
        found = tuple(
            Candidate(
                text=text,
                score=0.5 / (1 + index),
                source=CandidateSource.DIFFUSION,
                covered=self.covered,
                num_tokens=len(text.split()),
                is_cut=self.is_cut,
            )
            for index, text in enumerate(self.texts)
        )
        return Infill(
            text=self.texts[0],
            covered=self.covered,
            finish=Finish.STABLE,
            score=0.5,
            steps=3,
            timings_ms={"tokenize": 1.0, "encode": 3.0, "total": 10.0, "queue": 2.0},
            candidates=found,
        )


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        lines = self.body.decode().split("\n\n")
        assert lines.pop() == ""
        return [json.loads(line.removeprefix("data: ")) if line != "data: [DONE]" else "[DONE]" for line in lines]


@dataclass
class RunningServer:
    engine: AnsweringEngine
    port: int
    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])

    async def post(self, path: str, body: Any, **headers: str) -> Reply:
        return await self.request("POST", path, json.dumps(body).encode(), **headers)

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.request("GET", path, None, **headers)

    async def request(self, method: str, path: str, body: bytes | None, **headers: str) -> Reply:
        return await self.raw(self.head(method, path, body, **headers) + (body or b""))

    def head(self, method: str, path: str, body: bytes | None, **headers: str) -> bytes:
        fields = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        fields |= self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw(self, data: bytes) -> Reply:
        """Sends bytes and reads until the server closes the connection."""
        reader, writer = await self.open()
        writer.write(data)
        async with asyncio.timeout(10):
            reply = parsed(await reader.read())
        writer.close()
        return reply


def parsed(data: bytes) -> Reply:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
        body = whole
    return Reply(status=int(first.split()[1]), headers=headers, body=body)


@asynccontextmanager
async def running_server(
    engine: AnsweringEngine | None = None,
    settings: HttpSettings = FREE_PORT,
    *,
    clock: Callable[[], float] = lambda: 0.0,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[RunningServer]:
    """Serves the HTTP API while the block runs."""
    engine = engine or AnsweringEngine()
    server = HttpServer(create_app(engine, settings, clock=clock), settings)
    serving = asyncio.create_task(server.serve())
    try:
        yield RunningServer(engine, server.port, server.url, dict(headers or {}))
    finally:
        server.stop()
        await serving


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
