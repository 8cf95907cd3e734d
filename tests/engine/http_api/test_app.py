from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.http_api.app import create_app
from dgemma_engine.http_api.engine_lanes import EngineLanes
from dgemma_engine.http_api.http_server import HttpServer
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation

from tests.engine.fake_engine import PATIENCE_S, SteppingEngine, serving
from tests.engine.http_api.running_server import (
    FREE_PORT,
    AnsweringEngine,
    RunningServer,
    parsed,
    running_server,
    until,
)
from tests.lsp.chaos.engine import TEXT, chaos_engine

SLOW = [
    ("/infill", {"input_prefix": "SLOW", "input_suffix": ""}),
    ("/completion", {"prompt": "SLOW", "stream": True}),
    ("/v1/completions", {"prompt": "SLOW", "stream": True}),
    ("/v1/completions", {"prompt": "SLOW"}),
    ("/v1/infill", {"prefix": "SLOW", "suffix": ""}),
    ("/v1/completions", {"segments": {"prefix": "SLOW"}}),
    ("/v1/fim/completions", {"model": "m", "prompt": "SLOW", "stream": True}),
    ("/api/generate", {"model": "m", "prompt": "SLOW"}),
]


@pytest.mark.parametrize(("path", "body"), SLOW)
async def test_client_that_closes_its_connection_ends_the_work(path: str, body: dict[str, Any]) -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as running:
        _reader, writer = await running.open()
        data = json.dumps(body).encode()
        writer.write(running.head("POST", path, data) + data)
        await until(lambda: len(engine.contexts) == 1)
        assert engine.num_cancelled == 0
        writer.close()
        await until(lambda: engine.num_cancelled == 1)


async def test_shared_work_ends_when_both_of_its_clients_have_disconnected() -> None:
    engine = AnsweringEngine()
    body = json.dumps({"prompt": "SLOW"}).encode()
    async with running_server(engine) as running:
        writers = [(await running.open())[1] for _ in range(2)]
        for writer in writers:
            writer.write(running.head("POST", "/v1/completions", body) + body)
        await until(lambda: len(engine.contexts) == 1)
        await asyncio.sleep(0.05)
        writers[0].close()
        await asyncio.sleep(0.05)
        assert engine.num_cancelled == 0
        writers[1].close()
        await until(lambda: engine.num_cancelled == 1)


async def test_requests_above_the_limit_get_429_with_retry_after() -> None:
    engine = AnsweringEngine()
    async with running_server(engine, replace(FREE_PORT, max_requests=2)) as running:
        body = json.dumps({"prompt": "SLOW"}).encode()
        writers = [(await running.open())[1] for _ in range(2)]
        for number, writer in enumerate(writers):
            body = json.dumps({"prompt": f"{number} SLOW"}).encode()
            writer.write(running.head("POST", "/v1/completions", body) + body)
        await until(lambda: len(engine.contexts) == 2)
        reply = await running.post("/v1/completions", {"prompt": "x"})
        for writer in writers:
            writer.close()
        await until(lambda: engine.num_cancelled == 2)
        again = await running.post("/v1/completions", {"prompt": "x"})
    assert (reply.status, reply.headers["retry-after"], reply.headers["x-should-retry"]) == (429, "1", "false")
    assert reply.json["error"]["type"] == "rate_limit_error"
    assert again.status == 200


async def test_fifty_clients_at_once_are_all_answered_though_the_engine_takes_four_times_their_deadline(
    tmp_path: Path,
) -> None:
    """Each takes 40 ms of the device, so that the last one's answer comes 2 s after its request."""
    settings = replace(FREE_PORT, deadline_ms=500.0)
    body = {"input_suffix": "", "n_predict": 8}
    async with serving(tmp_path) as location, really_running_server(location, settings) as running:
        await until_loaded(running)
        questions = [body | {"input_prefix": f"{number} = "} for number in range(50)]
        replies = await asyncio.gather(*(running.post("/infill", one) for one in questions))
    assert {reply.status for reply in replies} == {200}
    assert [reply.json["content"] for reply in replies] == [f"{len(one['input_prefix'])}|0" for one in questions]


async def test_newest_request_of_a_document_is_answered_and_those_before_it_end_with_nothing(tmp_path: Path) -> None:
    """The engine makes no step until all but the newest are answered, and no deadline ends its work."""
    line = "value_of_this_line = "
    others = [f"{number} = " for number in range(3)]
    prefixes = others + [line[:num_chars] for num_chars in range(1, len(line) + 1)]
    may_step = threading.Event()
    engine = SteppingEngine(sleep=lambda _seconds: may_step.wait(PATIENCE_S))
    settings = replace(FREE_PORT, deadline_ms=600_000.0)
    async with (
        serving(tmp_path, load=lambda _report: engine) as location,
        really_running_server(location, settings) as running,
        asyncio.timeout(PATIENCE_S),
    ):
        await until_loaded(running)
        connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for prefix in prefixes:
            connections.append(await running.open())
            body = json.dumps({"input_prefix": prefix, "input_suffix": "", "n_predict": 8}).encode()
            connections[-1][1].write(running.head("POST", "/infill", body) + body)
        *older, newest = connections[len(others) :]
        assert [parsed(await reader.read()).json["content"] for reader, _ in older] == [""] * len(older)
        may_step.set()
        answered = [*connections[: len(others)], newest]
        texts = [parsed(await reader.read()).json["content"] for reader, _ in answered]
        for _, writer in connections:
            writer.close()
    assert texts == [f"{len(prefix)}|0" for prefix in (*others, line)]


async def test_document_whose_deadline_passes_while_the_engine_works_on_others_is_answered_empty(
    tmp_path: Path,
) -> None:
    may_step = threading.Event()
    engine = SteppingEngine(sleep=lambda _seconds: may_step.wait(PATIENCE_S))
    async with (
        serving(tmp_path, load=lambda _report: engine) as location,
        really_running_server(location, FREE_PORT) as running,
        asyncio.timeout(PATIENCE_S),
    ):
        await until_loaded(running)
        body = {"suffix": "", "max_middle_tokens": 2}
        works = [asyncio.create_task(running.post("/v1/infill", body | {"prefix": "0 = ", "deadline_ms": 600_000}))]
        await until(lambda: len(engine.runs) == 1)
        late = await running.post("/v1/infill", body | {"prefix": "1 = ", "deadline_ms": 1})
        may_step.set()
        (first,) = await asyncio.gather(*works)
    assert (late.status, late.json["text"], late.json["finish"]) == (200, "", "deadline")
    assert first.json["text"] == "4|0"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("GET", "/infill", 405),
        ("POST", "/health", 405),
        ("DELETE", "/v1/completions", 405),
        ("OPTIONS", "/infill", 405),
        ("POST", "/openapi.json", 405),
        ("GET", "/infill/", 404),
        ("GET", "//infill", 404),
        ("GET", "/v1", 404),
        ("GET", "/../etc/passwd", 404),
    ],
)
async def test_other_paths_and_methods_are_json_errors(method: str, path: str, status: int) -> None:
    async with running_server() as running:
        reply = await running.request(method, path, b"{}" if method == "POST" else None)
    assert (reply.status, reply.json["error"]["type"]) == (status, "not_found_error")
    assert ("allow" in reply.headers) == (status == 405)


async def test_head_has_the_headers_of_a_get() -> None:
    async with running_server() as running:
        reply = await running.request("HEAD", "/health", None)
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "15")


async def test_openapi_document_names_every_path_and_its_types() -> None:
    async with running_server() as running:
        reply = await running.get("/openapi.json")
    document = reply.json
    assert document["openapi"] == "3.1.0"
    assert {"/v1/infill", "/infill", "/completion", "/v1/completions", "/props", "/health"} <= set(document["paths"])
    infill = document["paths"]["/v1/infill"]["post"]
    schema = infill["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert {"prefix", "suffix"} == set(document["components"]["schemas"][schema]["required"])
    assert {"200", "400", "401", "429", "503"} <= set(infill["responses"])
    shared = document["paths"]["/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(shared["anyOf"]) == 2
    fim = document["paths"]["/v1/fim/completions"]["post"]["responses"]
    assert {"200", "400", "401", "422"} <= set(fim) and "422" not in infill["responses"]
    assert set(document["paths"]["/api/generate"]["post"]["responses"]["200"]["content"]) == {
        "application/json",
        "application/x-ndjson",
    }
    assert "text/event-stream" in fim["200"]["content"]


@asynccontextmanager
async def really_running_server(location: EngineLocation, settings: HttpSettings) -> AsyncIterator[RunningServer]:
    """Serves the HTTP API over connections to the engine at a location while the block runs."""

    async def connect(**listeners: Any) -> EngineClient:
        return await EngineClient.attach(location, **listeners)

    loop = asyncio.get_running_loop()
    said: list[Any] = []
    lanes = EngineLanes(connect, num_lanes=2, on_status=said.append, on_fault=said.append, clock=loop.time)
    server = HttpServer(create_app(lanes, settings), settings)
    serving = asyncio.create_task(server.serve())
    try:
        yield RunningServer(AnsweringEngine(), server.port, server.url)
    finally:
        await lanes.close()
        server.stop()
        await serving


async def until_loaded(running: RunningServer) -> None:
    async with asyncio.timeout(10):
        while (await running.get("/health")).status != 200:
            await asyncio.sleep(0.01)


async def test_status_reports_an_engine_that_is_missing_fails_or_dies(tmp_path: Path) -> None:
    location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(tmp_path)}, model="tiny")
    body = {"input_prefix": "x = ", "input_suffix": ""}
    async with really_running_server(location, FREE_PORT) as running:
        assert (await running.post("/infill", body)).status == 503
    with chaos_engine(location) as engine:
        async with really_running_server(location, FREE_PORT) as running:
            await until_loaded(running)
            assert (await running.post("/infill", body)).json["content"] == TEXT
            fault = await running.post("/infill", {"input_prefix": "FAULT", "input_suffix": ""})
            assert (fault.status, b"memory" in fault.body) == (503, False)
            engine.die()
            assert (await running.post("/infill", body)).status == 503
