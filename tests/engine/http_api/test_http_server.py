from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.app import create_app
from dgemma_engine.http_api.http_server import HttpServer
from dgemma_engine.http_api.http_settings import BindAddress, TlsFiles

from tests.engine.http_api.front_door import FREE_PORT, AnsweringEngine, parsed, until


async def test_tls_answers_who_trusts_the_certificate_and_nobody_in_plain_text(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = TlsFiles(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    issued.private_key_pem.write_to_path(files.key)
    issued.cert_chain_pems[0].write_to_path(files.cert)
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
