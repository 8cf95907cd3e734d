"""JSON-RPC on one connection, byte by byte: any input is answered, and its text stays out of the logs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import EngineFault
from dgemma_engine.ipc.json_rpc import Peer
from pygls.exceptions import JsonRpcException

from tests.engine.fake_engine import PATIENCE_S

SECRET = "TOP_SECRET"


class Wire:
    """The other end of the connection, as raw messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, message: Any) -> None:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def receive(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            headers = await self.reader.readuntil(b"\r\n\r\n")
            length = int(headers.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            return json.loads(await self.reader.readexactly(length))

    async def ask(self, message: Any) -> Any:
        self.send(message)
        return await self.receive()


class Handlers:
    def __init__(self) -> None:
        self.entered, self.cancelled = asyncio.Event(), asyncio.Event()

    async def echo(self, params: Any) -> Any:
        return params

    async def wait(self, params: Any) -> None:
        self.entered.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def fault(self, params: Any) -> None:
        raise KeyError(params["text"])

    async def known_fault(self, params: Any) -> None:
        raise EngineFault("the model is\nill; restart it")


@asynccontextmanager
async def connected(tmp_path: Path, handlers: Handlers) -> AsyncIterator[tuple[Wire, Peer]]:
    peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = {name: getattr(handlers, name) for name in ("echo", "wait", "fault", "known_fault")}
        peer = Peer(reader, writer, requests=methods)
        peers.put_nowait(peer)
        await peer.run()

    server = await asyncio.start_unix_server(accept, path=tmp_path / "s", limit=1 << 16)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s", limit=1 << 24)
    peer = await peers.get()
    try:
        yield Wire(reader, writer), peer
    finally:
        peer.close()
        writer.close()
        server.close()


def request(method: str, params: Any = None, msg_id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": msg_id, "method": method, "params": params}


ECHO = request("echo", {"a": [1, {"b": "c"}]}, "last")


@pytest.mark.parametrize(
    ("message", "msg_id", "code"),
    [
        (b"{" + SECRET.encode(), None, -32700),
        (b"\xff\xfe", None, -32700),
        ([SECRET], None, -32600),
        (SECRET, None, -32600),
        (None, None, -32600),
        ({"id": 1, "method": "echo", "params": SECRET}, None, -32600),
        (request("echo", SECRET) | {"jsonrpc": "1.0"}, None, -32600),
        (request("echo", SECRET, msg_id=[1]), None, -32600),
        (request("echo", SECRET, msg_id=True), None, -32600),
        (request("nothing", SECRET), 1, -32601),
        (request("fault", {"text": SECRET}), 1, -32603),
        (request("known_fault", SECRET), 1, -32803),
    ],
)
async def test_malformed_requests_are_answered_and_the_connection_stays_open(
    message: Any, msg_id: Any, code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with connected(tmp_path, Handlers()) as (wire, _):
        answer = await wire.ask(message)
        assert (answer["id"], answer["error"]["code"]) == (msg_id, code)
        assert "\n" not in answer["error"]["message"]
        assert (await wire.ask(ECHO))["result"] == ECHO["params"]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "nothing", "params": SECRET},
        {"jsonrpc": "2.0", "method": "$/cancelRequest"},
        {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": [1]}},
        {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": "unknown"}},
        {"jsonrpc": "2.0", "id": "unknown", "result": SECRET},
        {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": SECRET}},
    ],
)
async def test_stray_notifications_and_answers_are_ignored(
    message: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with connected(tmp_path, Handlers()) as (wire, _):
        wire.send(message)
        assert (await wire.ask(ECHO))["id"] == "last"
    assert SECRET not in caplog.text


async def test_request_without_params_reaches_its_handler(tmp_path: Path) -> None:
    async with connected(tmp_path, Handlers()) as (wire, _):
        answer = await wire.ask({"jsonrpc": "2.0", "id": 7, "method": "echo"})
        assert answer == {"jsonrpc": "2.0", "id": 7, "result": None}


async def test_cancel_request_is_answered_once_with_request_cancelled(tmp_path: Path) -> None:
    handlers = Handlers()
    async with connected(tmp_path, handlers) as (wire, _):
        wire.send(request("wait", msg_id=5))
        await handlers.entered.wait()
        wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 5}})
        answer = await wire.receive()
        assert (answer["id"], answer["error"]["code"]) == (5, -32800)
        assert handlers.cancelled.is_set()
        assert (await wire.ask(ECHO))["id"] == "last"


@pytest.mark.parametrize("last_bytes", [b"", b"Content-Length: 100\r\n\r\n{", b"x" * 300_000])
async def test_end_of_the_connection_cancels_its_handlers(last_bytes: bytes, tmp_path: Path) -> None:
    handlers = Handlers()
    async with connected(tmp_path, handlers) as (wire, peer):
        wire.send(request("wait"))
        await handlers.entered.wait()
        wire.writer.write(last_bytes)
        wire.writer.close()
        await asyncio.wait_for(handlers.cancelled.wait(), PATIENCE_S)
        assert peer.ended


async def test_end_of_the_connection_fails_pending_requests(tmp_path: Path) -> None:
    async with connected(tmp_path, Handlers()) as (wire, peer):
        pending = asyncio.create_task(peer.request("question", {}))
        assert (await wire.receive())["method"] == "question"
        wire.writer.close()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(pending, PATIENCE_S)
        with pytest.raises(ConnectionError):
            await peer.request("question", {})


async def test_cancelled_request_notifies_the_peer_and_ignores_its_late_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(tmp_path, Handlers()) as (wire, peer):
        pending = asyncio.create_task(peer.request("question", {}))
        msg_id = (await wire.receive())["id"]
        pending.cancel()
        notification = await wire.receive()
        assert (notification["method"], notification["params"]) == ("$/cancelRequest", {"id": msg_id})
        wire.send({"jsonrpc": "2.0", "id": msg_id, "result": "late"})
        assert (await wire.ask(ECHO))["id"] == "last"
        assert pending.cancelled()
    assert not caplog.records


async def test_request_raises_the_peers_error(tmp_path: Path) -> None:
    async with connected(tmp_path, Handlers()) as (wire, peer):
        pending = asyncio.create_task(peer.request("question", {}))
        msg_id = (await wire.receive())["id"]
        wire.send({"jsonrpc": "2.0", "id": msg_id, "error": {"code": -32803, "message": "no"}})
        with pytest.raises(JsonRpcException, match=r"^no$"):
            await asyncio.wait_for(pending, PATIENCE_S)


async def test_nothing_of_an_ended_request_is_kept(tmp_path: Path) -> None:
    async with connected(tmp_path, Handlers()) as (wire, peer):
        for answer in ({"result": 1}, {"error": {"code": -32803, "message": "no"}}):
            pending = asyncio.create_task(peer.request("question", {}))
            wire.send({"jsonrpc": "2.0", "id": (await wire.receive())["id"], **answer})
            await asyncio.wait([pending], timeout=PATIENCE_S)
            assert (pending.exception() is None) == ("result" in answer)
        taken_back = asyncio.create_task(peer.request("question", {}))
        msg_id = (await wire.receive())["id"]
        taken_back.cancel()
        assert (await wire.receive())["method"] == "$/cancelRequest"
        wire.send({"jsonrpc": "2.0", "id": msg_id, "error": {"code": -32800, "message": "cancelled"}})
        assert (await wire.ask(ECHO))["id"] == "last"
        assert not peer._protocol._result_types
        assert not peer._protocol._request_futures


async def test_messages_larger_than_the_stream_buffer_pass_both_ways(tmp_path: Path) -> None:
    async with connected(tmp_path, Handlers()) as (wire, _):
        text = "🦀é\n" * 700_000
        assert (await wire.ask(request("echo", text)))["result"] == text


async def test_settle_waits_until_the_last_byte_is_sent(tmp_path: Path) -> None:
    async with connected(tmp_path, Handlers()) as (wire, peer):
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        num_sent = 0
        while peer._writer.transport.get_write_buffer_size() == 0:
            peer.notify("news", num_sent)
            num_sent += 1
        settled = asyncio.create_task(peer.settle(PATIENCE_S))
        await asyncio.sleep(0.05)
        assert not settled.done()
        wire.reader._transport.resume_reading()  # type: ignore[attr-defined]
        await settled
        peer.close()
        for number in range(num_sent):
            assert (await wire.receive())["params"] == number
