from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.app import create_app
from dgemma_engine.http_api.http_server import HttpServer
from dgemma_engine.http_api.http_settings import BindAddress, TlsFiles

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, parsed, until


def issued_files(authority: trustme.CA, folder: Path, *, not_after: datetime | None = None) -> TlsFiles:
    issued = authority.issue_cert("127.0.0.1", not_after=not_after)
    files = TlsFiles(cert=folder / "cert.pem", key=folder / "key.pem")
    issued.private_key_pem.write_to_path(files.key)
    issued.cert_chain_pems[0].write_to_path(files.cert)
    return files


async def test_tls_answers_clients_that_trust_the_certificate_and_no_plain_http(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = issued_files(authority, tmp_path)
    settings = replace(FREE_PORT, tls=files)
    server = HttpServer(create_app(AnsweringEngine(), settings), settings)
    serving = asyncio.create_task(server.serve())
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting)
    writer.write(request)
    assert parsed(await reader.read()).status == 200
    writer.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=ssl.create_default_context())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    assert b"200" not in await reader.read()
    writer.close()
    assert server.url == f"https://127.0.0.1:{server.port}"
    server.stop()
    await serving


async def test_expired_certificate_is_refused_by_clients_and_serves_those_that_ignore_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = issued_files(authority, tmp_path, not_after=datetime(2021, 1, 1, tzinfo=UTC))
    settings = replace(FREE_PORT, tls=files)
    server = HttpServer(create_app(AnsweringEngine(), settings), settings)
    serving = asyncio.create_task(server.serve())
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting)
    writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert parsed(await reader.read()).status == 200
    writer.close()
    server.stop()
    await serving


def test_certificate_that_cannot_be_used_is_wrong_usage(tmp_path: Path) -> None:
    for name in ("none", "empty"):
        (tmp_path / "empty").touch()
        settings = replace(FREE_PORT, tls=TlsFiles(cert=tmp_path / name, key=tmp_path / name))
        with pytest.raises(WrongUsage, match="--tls-cert and --tls-key cannot be used"):
            HttpServer(create_app(AnsweringEngine(), settings), settings)


def test_port_in_use_is_wrong_usage_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = replace(FREE_PORT, bind=BindAddress(port=port))
        with pytest.raises(WrongUsage, match=rf"Cannot listen on 127.0.0.1:{port}: the port is in use. Choose another"):
            HttpServer(create_app(AnsweringEngine(), settings), settings)


async def test_accepted_connection_sends_small_pieces_at_once() -> None:
    server = HttpServer(create_app(AnsweringEngine(), FREE_PORT), FREE_PORT)
    serving = asyncio.create_task(server.serve())
    _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await until(lambda: len(server._server.server_state.connections) == 1)
    (connection,) = server._server.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    writer.close()
    server.stop()
    await serving


async def test_unfinished_handshake_is_closed(tmp_path: Path) -> None:
    settings = replace(FREE_PORT, tls=issued_files(trustme.CA(), tmp_path), receive_s=0.1)
    server = HttpServer(create_app(AnsweringEngine(), settings), settings)
    serving = asyncio.create_task(server.serve())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    server.stop()
    await serving


async def test_handshakes_above_the_limit_are_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = trustme.CA()
    settings = replace(FREE_PORT, tls=issued_files(authority, tmp_path), max_connections=2)
    server = HttpServer(create_app(AnsweringEngine(), settings), settings)
    serving = asyncio.create_task(server.serve())
    waiting = [(await asyncio.open_connection("127.0.0.1", server.port))[1] for _ in range(2)]
    await until(lambda: len(server._server._handshakes) == 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    for one in (writer, *waiting):
        one.close()
        await one.wait_closed()
    await until(lambda: not server._server._handshakes)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting)
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert parsed(await reader.read()).status == 200
        writer.close()
    assert caplog.records == []
    server.stop()
    await serving


async def test_connections_that_cannot_be_accepted_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    server = HttpServer(create_app(AnsweringEngine(), FREE_PORT), FREE_PORT)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server._server.started)
    loop = asyncio.get_running_loop()
    for _ in range(100):
        error = OSError(errno.EMFILE, "Too many open files")
        loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": error})
    assert [record.getMessage() for record in caplog.records] == [
        "no connection can be accepted now: Too many open files"
    ]
    loop.call_exception_handler({"message": "another fault"})
    assert caplog.records[-1].getMessage() == "another fault"
    server.stop()
    await serving
    assert loop.get_exception_handler() is None


def test_encrypted_key_is_wrong_usage(tmp_path: Path) -> None:
    files = issued_files(trustme.CA(), tmp_path)
    key = load_pem_private_key(files.key.read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"phrase"))
    files.key.write_bytes(sealed)
    settings = replace(FREE_PORT, tls=files)
    with pytest.raises(WrongUsage, match=r"key\.pem is encrypted; give one without a pass phrase"):
        HttpServer(create_app(AnsweringEngine(), settings), settings)
