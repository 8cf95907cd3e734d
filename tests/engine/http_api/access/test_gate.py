from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from dgemma_engine.http_api.access.api_keys import ApiKeys

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, running_server

BODY = {"input_prefix": "x = ", "input_suffix": ""}
KEY, OTHER = "0123456789abcdef-one", "0123456789abcdef-two"
KEYS = ApiKeys.read(None, {"DGEMMA_API_KEY": KEY})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8012", 200),
        ("LOCALHOST", 200),
        ("editor.localhost", 200),
        ("[::1]:8012", 200),
        ("192.168.1.7", 200),
        ("here.example", 200),
        ("evil.example", 403),
        ("evil.example:8012", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1@evil.example", 403),
        ("evil.example#localhost", 403),
        ("localhost:x", 403),
        (":8012", 403),
    ],
)
async def test_host_must_be_an_address_or_a_known_name(host: str, status: int) -> None:
    async with running_server(settings=replace(FREE_PORT, hosts=("here.example",))) as server:
        reply = await server.post("/infill", BODY, Host=host)
    assert reply.status == status
    assert len(server.engine.contexts) == (status == 200)
    assert (status == 200) or b"evil" not in reply.body


async def test_two_host_headers_are_refused() -> None:
    async with running_server() as server:
        head = server.head("GET", "/health", None).replace(b"\r\n\r\n", b"\r\nhOST: localhost\r\n\r\n")
        assert (await server.raw(head)).status in (400, 403)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:{port}", 200),
        ("vscode-webview://0abc", 200),
        ("https://page.example", 200),
        ("https://evil.example", 403),
        ("http://127.0.0.1:1", 403),
        ("http://localhost", 403),
        ("null", 403),
        ("https://page.example.evil.example", 403),
    ],
)
async def test_origin_must_be_ours_or_a_known_one(origin: str, status: int) -> None:
    async with running_server(settings=replace(FREE_PORT, origins=("https://page.example",))) as server:
        origin = origin.format(port=server.port)
        reply = await server.post("/infill", BODY, Origin=origin)
        assert reply.status == status
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = await server.request("OPTIONS", "/infill", None, **asked)
    assert preflight.status == (204 if status == 200 else 403)
    for one in (reply, preflight):
        assert one.headers.get("access-control-allow-origin") == (origin if status == 200 else None)


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "text/json"]
)
async def test_body_of_another_type_is_refused(kind: str) -> None:
    async with running_server() as server:
        reply = await server.post("/infill", BODY, Content_Type=kind)
    assert (reply.status, server.engine.contexts) == (415, [])
    assert reply.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_json_in_utf8_is_accepted(kind: str) -> None:
    async with running_server() as server:
        assert (await server.post("/infill", BODY, Content_Type=kind)).status == 200


async def test_compressed_body_is_refused() -> None:
    async with running_server() as server:
        assert (await server.post("/infill", BODY, Content_Encoding="gzip")).status == 415


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-Api-Key": KEY},
        {"api-key": KEY, "Authorization": "Bearer undefined"},
        {"Authorization": "Basic dTowMTIzNDU2Nzg5YWJjZGVmLW9uZQ=="},
    ],
)
async def test_key_is_accepted_in_each_header(headers: dict[str, str]) -> None:
    async with running_server(settings=replace(FREE_PORT, keys=KEYS)) as server:
        assert (await server.post("/infill", BODY, **headers)).status == 200
        assert (await server.get("/props", **headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {OTHER}"},
        {"Authorization": KEY},
        {"X-Api-Key": KEY[:-1]},
        {"Authorization": "Basic !!!"},
        {"Authorization": f"Bearer {KEY}\r\nAuthorization: Bearer {KEY}"},
    ],
)
async def test_no_key_or_a_wrong_one_is_refused(headers: dict[str, str]) -> None:
    async with running_server(settings=replace(FREE_PORT, keys=KEYS)) as server:
        reply = await server.post("/infill", BODY, **headers)
        listing = await server.get("/v1/models", **headers)
        health = await server.get("/health", **headers)
        document = await server.get("/openapi.json", **headers)
    assert (reply.status, listing.status, health.status, document.status) == (401, 401, 200, 401)
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json["error"]["type"] == "authentication_error"
    assert server.engine.contexts == []


async def test_dummy_key_is_ignored_where_none_is_needed() -> None:
    async with running_server() as server:
        assert (await server.post("/infill", BODY, Authorization="Bearer undefined")).status == 200


async def test_body_above_the_limit_is_refused_declared_or_not() -> None:
    async with running_server(settings=replace(FREE_PORT, max_body_bytes=1_000)) as server:
        declared = await server.post("/infill", BODY | {"input_suffix": "x" * 1_000})
        body = json.dumps(BODY | {"input_suffix": "x" * 1_000}).encode()
        head = server.head("POST", "/infill", b"", Content_Length="", Transfer_Encoding="chunked")
        chunked = await server.raw(head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        fits = await server.post("/infill", BODY)
    assert (declared.status, chunked.status, fits.status) == (413, 413, 200)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"7", b'{"input_prefix": "\\ud800"}', b"[" * 5_000])
async def test_body_that_is_no_json_object_is_a_bad_request(body: bytes) -> None:
    async with running_server() as server:
        for path in ("/infill", "/v1/infill", "/v1/completions", "/completions", "/completion"):
            reply = await server.request("POST", path, body)
            assert reply.status == 400 and reply.json["error"]["message"], path


async def test_body_that_ends_early_reaches_no_engine() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        _reader, writer = await server.open()
        body = json.dumps(BODY).encode()
        writer.write(server.head("POST", "/infill", body) + body[:-5])
        await writer.drain()
        writer.close()
        assert (await server.post("/infill", BODY)).status == 200
    assert len(engine.contexts) == 1


async def test_fault_in_a_handler_is_answered_with_500_and_its_log_has_no_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_server() as server:
        reply = await server.post("/infill", {"input_prefix": "secret CRASH", "input_suffix": ""})
        again = await server.post("/infill", BODY)
    assert (reply.status, reply.json["error"]["type"], again.status) == (500, "server_error", 200)
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text and b"secret" not in reply.body


async def test_answers_are_not_cached_and_do_not_name_the_server() -> None:
    async with running_server() as server:
        reply = await server.get("/health")
    assert reply.headers["cache-control"] == "no-store" and "server" not in reply.headers


@pytest.mark.parametrize("is_declared", [True, False])
async def test_body_of_a_get_has_the_same_limit(is_declared: bool) -> None:
    async with running_server(settings=replace(FREE_PORT, max_body_bytes=1_000, keys=KEYS)) as server:
        body = b"x" * 2_000
        if is_declared:
            reply = await server.request("GET", "/health", body)
        else:
            head = server.head("GET", "/health", b"", Content_Length="", Transfer_Encoding="chunked")
            reply = await server.raw(head + b"7d0\r\n" + body + b"\r\n0\r\n\r\n")
        assert reply.status == 413
        assert (await server.request("GET", "/health", body[:500])).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_client_that_disconnects_is_not_logged(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running_server() as server:
        _reader, writer = await server.open()
        writer.write(server.head(method, "/health", b"x" * 100) + b"x" * 10)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
    assert caplog.records == []
