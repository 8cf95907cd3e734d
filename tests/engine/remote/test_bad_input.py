"""Faults between client and engine: each is one sentence in the status, not an error, and delays no caller."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.engine_client.retry_policy import RetryPolicy
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import HttpSettings, TlsFiles
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Infill
from dgemma_engine.remote import http_channel, loading_watch
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.http_channel import Broken, HttpChannel
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.http_api.running_server import FREE_PORT, running_server
from tests.engine.remote.elsewhere import network_to, question

KEY = "0123456789abcdef"
NOW = datetime.now(UTC)


async def outcome(location: RemoteLocation) -> Infill | ConnectionStatus:
    """Sends one request, as the language server does."""
    statuses: list[ConnectionStatus] = []
    connection = EngineConnection(
        partial(connect_remote, location),
        on_status=statuses.append,
        on_fault=statuses.append,
        clock=time.monotonic,
        policy=RetryPolicy(connect_ms=10_000),
    )
    try:
        return await connection.infill(question())
    finally:
        await connection.close()
        assert all(status.state is not ConnectionState.FAILED for status in statuses), "a status, not an error"


async def said(location: RemoteLocation) -> str:
    """Returns the sentence in the status that replaces an answer."""
    answer = await outcome(location)
    assert isinstance(answer, ConnectionStatus)
    assert answer.state is ConnectionState.ABSENT
    assert "\n" not in answer.message and len(answer.message) < 250
    cause, _, remedy = answer.message.partition("; ")
    assert remedy and cause.count("(") == cause.count(")"), "`doctor` shows cause and remedy separately"
    return answer.message


@asynccontextmanager
async def answering(content: bytes, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yields the port of a server that answers every request with `content`, or never if that is empty."""
    held: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.read(2**16)
        if content:
            writer.write(content)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in held:
            writer.transport.abort()


def http(status: str, kind: str, body: str, *more: str) -> bytes:
    fields = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return ("\r\n".join(fields) + "\r\n\r\n" + body).encode("latin-1")


def about(**other: Any) -> bytes:
    values: dict[str, Any] = {"protocol": PROTOCOL, "state": "ready", "percent": 100, "status": None}
    return http("200 OK", "application/json", json.dumps(values | other))


PORTAL = "<html>Please sign in to the network of this hotel</html>"
CROWDED = json.dumps({"error": {"message": "Too many connections are open; ask again later.", "code": 503}})
NO_PATH = json.dumps({"error": {"message": "There is no such path.", "code": 404}})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (http("200 OK", "text/html", PORTAL), "something else than an engine answers, a web page perhaps; sign in"),
        (http("302 Found", "text/html", "", "Location: http://portal.example/"), "sign in to this network"),
        (http("511 Network Authentication Required", "text/html", PORTAL), "sign in to this network"),
        (http("407 Proxy Authentication Required", "text/html", ""), "a proxy on the way needs a password"),
        (http("502 Bad Gateway", "text/html", "<html>"), "a proxy on the way does not reach the engine"),
        (http("503 Service Unavailable", "text/html", "<html>"), "a proxy on the way does not reach the engine"),
        (http("503 Service Unavailable", "application/json", CROWDED, "Retry-After: 7"), "can be asked again in 7 s"),
        (http("429 Too Many Requests", "text/html", "", "Retry-After: 9"), "can be asked again in 9 s"),
        (http("418 Teapot", "text/html", ""), "answers with HTTP status 418, which an engine does not send"),
        (http("404 Not Found", "application/json", NO_PATH), "update dgemma-lsp there"),
        (http("200 OK", "application/json", "[1]"), "something else than an engine answers"),
        (http("200 OK", "application/json", '{"version": "1.2"}'), "something else than an engine answers"),
        (about(protocol=PROTOCOL - 1), "has an older version of dgemma-lsp; update it there"),
        (about(protocol=PROTOCOL + 1), "has a newer version of dgemma-lsp; update it here"),
        (about(protocol=True), "something else than an engine answers"),
        (about(protocol="1"), "something else than an engine answers"),
        (about(state="failed"), "its engine cannot load a model"),
        (about(state="asleep"), "something else than an engine answers"),
        (about(state="loading", percent=float("inf")), "something else than an engine answers"),
        (about(state="loading", percent=float("nan")), "something else than an engine answers"),
        (
            http("429 Too Many Requests", "text/html", "", "Retry-After: \N{SUPERSCRIPT TWO}"),
            "can be asked again in 1 s",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broke the connection off before its answer, twice; check the port of engine.url"),
        (http("200 OK", "application/json", '{"protocol"'), "broke the connection off"),
    ],
)
async def test_answers_of_other_servers(content: bytes, sentence: str) -> None:
    async with answering(content) as port:
        assert sentence in await said(RemoteLocation(url=f"http://127.0.0.1:{port}"))


async def test_machine_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_watch, "_ANSWER_S", 0.1)
    async with answering(b"") as port:
        message = await said(RemoteLocation(url=f"http://127.0.0.1:{port}"))
    assert "does not answer: the network is down, or the machine sleeps or is off" in message


async def test_port_without_a_listener() -> None:
    async with answering(b"") as port:
        pass
    message = await said(RemoteLocation(url=f"http://127.0.0.1:{port}"))
    assert message == f"127.0.0.1:{port} refuses connections; start there: dgemma-engine serve"


async def test_name_that_is_not_found() -> None:
    message = await said(RemoteLocation(url="https://gpu.invalid"))
    assert "gpu.invalid is not found: the network is down" in message


@pytest.mark.parametrize("key", ["", "fedcba9876543210"])
async def test_wrong_key(tmp_path: Path, key: str) -> None:
    file = tmp_path / "key"
    file.write_text(f"# mine\n\n{key}\n" if key else "")
    keys = ApiKeys.read(None, {"DGEMMA_API_KEY": KEY})
    async with running_server(settings=HttpSettings(bind=FREE_PORT.bind, keys=keys)) as running:
        message = await said(RemoteLocation(url=running.url, key_file=str(file) if key else ""))
    assert "does not accept the key" in message
    assert not key or key not in message


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("gpu.example", "engine.url is no URL of HTTP"),
        ("https://kim:x@gpu.example", "engine.url must hold no user name or password"),
        ("https://gpu.example\0", "engine.url holds a character that cannot be seen (U+0000)"),
        ("https://127.0.0.1000", "engine.url names no host that can be asked: 127.0.0.1000"),
        ("http://gpu.example", "engine.url: plain HTTP to gpu.example would send your text unencrypted"),
    ],
)
async def test_url_that_cannot_be_used(url: str, sentence: str) -> None:
    assert sentence in await said(RemoteLocation(url=url))


@asynccontextmanager
async def with_certificate(tmp_path: Path, authority: trustme.CA, **issued: Any) -> AsyncIterator[str]:
    names = issued.pop("names", ("127.0.0.1", "localhost"))
    certificate = authority.issue_cert(*names, **issued)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    async with running_server(settings=HttpSettings(bind=FREE_PORT.bind, tls=TlsFiles(cert=cert, key=key))) as running:
        yield running.url


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(tmp_path: Path, authority: trustme.CA) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


async def test_certificate_of_a_named_authority_is_accepted(
    tmp_path: Path, authority: trustme.CA, ca_file: str
) -> None:
    async with with_certificate(tmp_path, authority) as url:
        assert isinstance(await outcome(RemoteLocation(url=url, ca_file=ca_file)), Infill)


@pytest.mark.parametrize(
    ("issued", "sentence"),
    [
        (
            {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=1)},
            "its certificate has expired; renew it there, or correct the clock of this machine",
        ),
        (
            {"not_before": NOW + timedelta(days=9), "not_after": NOW + timedelta(days=99)},
            "its certificate is not valid yet; correct the clock of this machine",
        ),
        ({"names": ("gpu.example",)}, "its certificate is for another name"),
        ({"names": ("10.0.0.7",)}, "its certificate is for another name"),
    ],
)
async def test_invalid_certificate(
    tmp_path: Path, authority: trustme.CA, ca_file: str, issued: dict[str, Any], sentence: str
) -> None:
    async with with_certificate(tmp_path, authority, **issued) as url:
        assert sentence in await said(RemoteLocation(url=url, ca_file=ca_file))


async def test_certificate_of_a_foreign_authority(tmp_path: Path, authority: trustme.CA) -> None:
    async with with_certificate(tmp_path, authority) as url:
        assert "of an unknown authority; name the file of that authority in engine.caFile" in await said(
            RemoteLocation(url=url)
        )


async def test_http_server_asked_for_https() -> None:
    async with running_server() as running:
        message = await said(RemoteLocation(url=running.url.replace("http:", "https:")))
    assert "does not answer in HTTPS; check the scheme and the port of engine.url" in message


async def test_https_server_asked_for_http(tmp_path: Path, authority: trustme.CA) -> None:
    async with with_certificate(tmp_path, authority) as url:
        message = await said(RemoteLocation(url=url.replace("https:", "http:")))
    assert message.endswith("answers in HTTPS only; write https in engine.url in place of http")


async def test_https_server_is_recognised_by_its_handshake_and_not_by_its_page(
    tmp_path: Path, authority: trustme.CA
) -> None:
    page = http("400 Bad Request", "text/html", "<html>The plain HTTP request was sent to HTTPS port</html>")
    async with with_certificate(tmp_path, authority) as url, answering(page) as port:
        channel = HttpChannel(RemoteLocation(url=url.replace("https:", "http:")))
        assert await channel.is_tls()
        await channel.close()
        # A server that sends these words and does not use TLS is not an HTTPS server.
        assert "HTTP status 400, which an engine does not send" in await said(
            RemoteLocation(url=f"http://127.0.0.1:{port}")
        )


async def test_host_name_that_the_server_does_not_allow() -> None:
    async with running_server() as running:
        location = RemoteLocation(url=f"http://gpu.lan:{running.port}", plain_hosts=("gpu.lan",))
        async with AsyncExitStack() as stack:
            _resolve(stack, "gpu.lan")
            message = await said(location)
    assert "start there: dgemma-engine serve --allow-host gpu.lan, or name it in allow_hosts of the cluster" in message


def _resolve(stack: AsyncExitStack, name: str) -> None:
    loop = asyncio.get_running_loop()
    own = loop.getaddrinfo

    async def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        is_name = host in (name, name.encode())
        return await own("127.0.0.1" if is_name else host, *arguments, **named)

    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
    stack.callback(setattr, loop, "getaddrinfo", own)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(http_channel, "_MAX_ANSWER_BYTES", 1_000)
    async with answering(http("200 OK", kind, "data: " + "x" * 5_000)) as port:
        channel = HttpChannel(RemoteLocation(url=f"http://127.0.0.1:{port}"))
        with pytest.raises(Broken, match="too long"):
            async for _ in channel.events("/v1/engine/infill", b"{}"):
                pass
        await channel.close()


async def test_network_that_recovers_is_used_again() -> None:
    async with running_server() as running, network_to(running.port) as network:
        connection = EngineConnection(
            partial(connect_remote, RemoteLocation(url=f"http://127.0.0.1:{network.port}")),
            on_status=lambda _status: None,
            on_fault=lambda _status: None,
            clock=time.monotonic,
            policy=RetryPolicy(connect_ms=5_000, first_pause_s=0.01, longest_pause_s=0.01),
        )
        assert isinstance(await connection.infill(question()), Infill)
        network.from_engine = lambda _data: None
        lost = await connection.infill(question())
        assert isinstance(lost, ConnectionStatus)
        network.from_engine = lambda data: data
        await asyncio.sleep(0.02)
        assert isinstance(await connection.infill(replace(question(), prefix="y = ")), Infill)
        await connection.close()
