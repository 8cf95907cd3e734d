"""JSON bodies that exceed Python's limits of nesting or digits: the rest of the message is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dgemma_lsp.server.decoding import decoded
from tests.lsp.editor import URI
from tests.lsp.raw_client import framed, question, raw_client

INVALID_PARAMS = -32602


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_value_that_is_nested_too_deeply_becomes_null_and_the_rest_stays(opening: str, depth: int):
    closing = "]" if opening == "[" else "}"
    value = opening * depth + ("1" if opening != "[" else "") + closing * depth
    body = f'{{"id": 7, "text": "[[{{\\"", "params": {value}, "method": "m"}}'
    message, is_whole = decoded(body.encode())
    assert not is_whole
    assert (message["id"], message["text"], message["method"]) == (7, '[[{"', "m")


def test_numbers_of_any_length_are_numbers():
    message, is_whole = decoded(b'{"id": 7, "line": ' + b"9" * 5_000 + b', "less": -' + b"9" * 5_000 + b"}")
    assert is_whole
    assert message == {"id": 7, "line": math.inf, "less": -math.inf}


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 5_000, b"\xff", b"[" * 2_000 + b"}" * 2_000])
def test_body_that_is_no_json_is_refused(body: bytes):
    with pytest.raises(ValueError):
        decoded(body)


@pytest.mark.parametrize("method", ["textDocument/inlineCompletion", "dgemma/fill", "dgemma/denoise", "dgemma/tally"])
@pytest.mark.parametrize("inner", ["[" * 5_000 + "]" * 5_000, "9" * 5_000], ids=["deep", "long number"])
async def test_request_is_answered_under_its_id(record: Path, method: str, inner: str):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("x = ")
        body = json.dumps({"jsonrpc": "2.0", "id": 40, "method": method, "params": question(0, 4) | {"line": "INNER"}})
        client.write(framed(body.replace('"INNER"', inner).encode()))
        answer = await client.response(40)
        assert "result" in answer or answer["error"]["code"] == INVALID_PARAMS
        assert len(client.responses(40)) == 1


async def test_position_that_is_no_number_of_the_protocol_is_refused(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("x = ")
        params: dict[str, Any] = question(0, 4)
        params["position"] = {"line": "LINE", "character": 0}
        body = json.dumps({"jsonrpc": "2.0", "id": 41, "method": "textDocument/inlineCompletion", "params": params})
        client.write(framed(body.replace('"LINE"', "9" * 5_000).encode()))
        assert (await client.response(41))["error"]["code"] == INVALID_PARAMS


@pytest.mark.parametrize("number", [2**31, 2**70, 1e300, 9.0])
@pytest.mark.parametrize("uri", [URI, "file:///w/closed.py"])
async def test_own_requests_take_positions_beyond_every_file(record: Path, number: float, uri: str):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("x = ")
        place = {"line": number, "character": 0}
        document = {"uri": uri, "version": 1.0}
        span = {"start": {"line": 0, "character": 0}, "end": place}
        fill = {"textDocument": document, "range": span, "kind": "selection"}
        assert "result" in await client.request("dgemma/fill", fill)
        shown = {"textDocument": document, "position": place, "token": "x"}
        assert "result" in await client.request("dgemma/denoise", shown)


@pytest.mark.parametrize("number", [True, -1, 1.5, "1", None])
async def test_own_requests_refuse_what_is_no_whole_number(record: Path, number: object):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("x = ")
        shown = {"textDocument": {"uri": URI}, "position": {"line": number, "character": 0}, "token": "x"}
        assert (await client.request("dgemma/denoise", shown))["error"]["code"] == INVALID_PARAMS
