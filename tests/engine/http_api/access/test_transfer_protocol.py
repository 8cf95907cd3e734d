from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, parsed, running_server, until

BODY = json.dumps({"input_prefix": "x = ", "input_suffix": ""}).encode()
IMPATIENT = replace(FREE_PORT, receive_s=0.1)


@pytest.mark.parametrize("num_bytes", [0, 10, 100_000])
async def test_request_that_does_not_arrive_in_time_gets_408(num_bytes: int) -> None:
    async with running_server(settings=IMPATIENT) as server:
        whole = server.head("POST", "/infill", BODY) + BODY
        reader, writer = await server.open()
        writer.write(whole[: min(num_bytes, len(whole) - 3)])
        reply = parsed(await reader.read())
        writer.close()
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert reply.json["error"]["message"] == "The request did not arrive in time."
    assert reply.json["error"]["type"] == "timeout_error"
    assert server.engine.contexts == []


async def test_bytes_that_trickle_in_do_not_extend_the_time_limit() -> None:
    async with running_server(settings=IMPATIENT) as server:
        reader, writer = await server.open()
        reading = asyncio.create_task(reader.read())
        for byte in server.head("POST", "/infill", BODY):
            if reading.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the server read to the end")
        # A byte that is sent after the server has closed resets the connection, and the answer may be lost.
        assert isinstance(reading.exception(), ConnectionError) or parsed(reading.result()).status == 408
        writer.close()


async def test_answer_may_take_longer_than_the_request() -> None:
    body = json.dumps({"input_prefix": "SLOW", "input_suffix": ""}).encode()
    async with running_server(settings=IMPATIENT) as server:
        reader, writer = await server.open()
        writer.write(server.head("POST", "/infill", body) + body)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await reader.read()
        writer.close()


async def test_connection_stays_for_further_requests_and_pipelined_ones() -> None:
    async with running_server(settings=IMPATIENT) as server:
        reader, writer = await server.open()
        one = server.head("POST", "/infill", BODY, Connection="keep-alive") + BODY
        writer.write(one)
        await reader.readuntil(b"}")
        await asyncio.sleep(0.2)
        last = server.head("POST", "/infill", BODY) + BODY
        writer.write(one + last)
        rest = await reader.read()
        writer.close()
    assert rest.count(b"HTTP/1.1 200") == 2 and len(server.engine.contexts) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
async def test_malformed_request_is_answered_as_json(data: bytes) -> None:
    async with running_server() as server:
        reply = await server.raw(data)
        assert reply.status in (400, 431)
        assert reply.json["error"]["code"] == reply.status
        assert (await server.get("/health")).status == 200


@pytest.mark.parametrize("num_bytes", [10, 100_000])
async def test_request_that_ends_early_is_answered_with_400(num_bytes: int) -> None:
    async with running_server() as server:
        whole = server.head("POST", "/infill", BODY) + BODY
        reader, writer = await server.open()
        writer.write(whole[: min(num_bytes, len(whole) - 3)])
        writer.write_eof()
        reply = parsed(await reader.read())
        writer.close()
        assert (await server.get("/health")).status == 200
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    assert reply.json["error"]["message"] == "The request ended early."
    assert server.engine.contexts == []


async def test_connections_above_the_limit_get_503_with_retry_after() -> None:
    async with running_server(settings=replace(FREE_PORT, max_connections=2)) as server:
        writers = [(await server.open())[1] for _ in range(2)]
        await asyncio.sleep(0.05)
        reply = await server.raw(b"")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        for writer in writers:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        assert (await server.get("/health")).status == 200


async def test_client_that_reads_nothing_is_disconnected() -> None:
    """Its request ends once its socket has been full for `send_s`; other clients are answered meanwhile."""
    engine = AnsweringEngine("x" * 10_000_000)
    async with running_server(engine, replace(FREE_PORT, send_s=0.05)) as server:
        reader, writer = await server.open()
        body = json.dumps({"prefix": "x", "suffix": ""}).encode()
        writer.write(server.head("POST", "/v1/infill", body) + body)
        await until(lambda: len(engine.contexts) == 1)
        assert (await server.get("/health")).status == 200
        await asyncio.sleep(0.2)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(20_000_000)
        writer.close()


@pytest.mark.parametrize("is_whole_head", [True, False])
async def test_half_a_request_after_a_whole_one_is_ended(is_whole_head: bool) -> None:
    body = json.dumps({"input_prefix": "LATER", "input_suffix": ""}).encode()
    async with running_server(settings=IMPATIENT) as server:
        reader, writer = await server.open()
        one = server.head("POST", "/infill", body, Connection="keep-alive") + body
        writer.write(one + one[: -5 if is_whole_head else 20])
        async with asyncio.timeout(5):
            first, _, second = (await reader.read()).partition(b"}HTTP/1.1")
        writer.close()
    assert first.startswith(b"HTTP/1.1 200")
    assert parsed(b"HTTP/1.1" + second).status == 408
    assert len(server.engine.contexts) == 1


async def test_refusal_before_the_body_arrives_and_closes_the_connection() -> None:
    async with running_server(settings=replace(FREE_PORT, receive_s=0.5)) as server:
        large = b"x" * 3_000_000
        head = server.head("POST", "/infill", large, Content_Type="text/plain", Connection="keep-alive")
        reader, writer = await server.open()
        writer.write(head + large)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        assert answer.count(b"HTTP/1.1") == 1
        assert (parsed(answer).status, parsed(answer).headers["connection"]) == (415, "close")
        reader, writer = await server.open()
        writer.write(head)
        async with asyncio.timeout(5):
            assert parsed(await reader.read()).status == 415
        writer.close()


async def test_refusal_of_a_request_without_a_body_keeps_the_connection() -> None:
    async with running_server() as server:
        reader, writer = await server.open()
        writer.write(server.head("GET", "/health", None, Host="evil.example", Connection="keep-alive"))
        assert b"403" in await reader.readuntil(b"\r\n\r\n")
        writer.write(server.head("GET", "/health", None))
        assert b"HTTP/1.1 200" in await reader.read()
        writer.close()
