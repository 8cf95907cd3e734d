"""Every field of every body wrong in turn: an answer or a sentence that names the field, and never a fault."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from dgemma_engine.http_api.app import DIALECTS
from dgemma_engine.http_api.operation import Operation
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Context
from dgemma_engine.protocol.remote_messages import BASE_UNKNOWN, QuestionText

from tests.engine.http_api.running_server import AnsweringEngine, running_server

QUESTION = QuestionText.of(Context(document="d", prefix="x", suffix=""))
# Two numbers are too large for 64 bits and for a double.
RAW = ["null", "true", "-1", "0", "7", "1e3", "-1.5", "1e999", str(2**63), str(2**70), '""', '"x"', '"a\\u0000b"', "[]",
       "[null]", '["x"]', "[1, 2]", "[[]]", "{}", '{"x": 1}', '[{"text": 7}]', '"' + "x" * 70_000 + '"']  # fmt: skip
FILLED = {"prefix": "x", "suffix": "", "input_prefix": "x", "input_suffix": "", "prompt": "x", "model": "m",
          "segments": {"prefix": "x"}, "type": "view", "protocol": PROTOCOL, "session": "s", "request": "r",
          "pieces": [QUESTION.text], "sum": QUESTION.sum, "text": "", "names": ["f"]}  # fmt: skip
OPERATIONS = [one for make in DIALECTS for one in make().operations() if one.method == "POST"]


def fields(operation: Operation) -> tuple[str, ...]:
    assert operation.body is not None
    return operation.body.__struct_fields__


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.paths[0]} {one.body.__name__}")
async def test_wrong_value_is_answered_or_named(operation: Operation) -> None:
    valid = {name: value for name, value in FILLED.items() if name in fields(operation)}
    async with running_server(AnsweringEngine()) as server:
        for name in fields(operation):
            others = json.dumps({key: value for key, value in valid.items() if key != name})
            for raw in RAW:
                body = f'{others[:-1]}{", " if len(others) > 2 else ""}"{name}": {raw}}}'.encode()
                reply = await server.request("POST", operation.paths[0], body)
                assert reply.status in (200, operation.invalid_status, BASE_UNKNOWN), (name, raw[:20])
                is_claimed = operation.claims is None or operation.claims(
                    msgspec.json.decode(body, type=dict[str, msgspec.Raw])
                )
                if reply.status != 200 and is_claimed:
                    assert name in problem(reply.json) or "not JSON" in problem(reply.json), (name, raw[:20])


def problem(body: Any) -> str:
    error = body["error"]
    return error if isinstance(error, str) else error["message"]


async def test_whole_number_may_have_a_fraction_of_zero() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        body = {"input_prefix": "x", "input_suffix": "", "n_predict": 7.0, "input_extra": [{"text": "y"}]}
        reply = await server.post("/infill", body)
        refused = await server.post("/infill", body | {"n_predict": 7.5})
    assert (reply.status, engine.contexts[0].max_middle_tokens) == (200, 7)
    assert refused.status == 400 and "n_predict" in problem(refused.json)


@pytest.mark.parametrize("body", [b"3\xff", b"3 4", b'{"prompt": 3', b"[" * 5_000, b"\xff", b""])
async def test_body_that_is_no_json_after_a_value_of_a_wrong_type_is_refused(body: bytes) -> None:
    async with running_server() as server:
        reply = await server.request("POST", "/v1/completions", body)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


async def test_expect_100_continue_is_answered() -> None:
    body = json.dumps({"input_prefix": "x", "input_suffix": "y" * 2_000_000}).encode()
    async with running_server() as server:
        reader, writer = await server.open()
        writer.write(server.head("POST", "/infill", body, Expect="100-continue"))
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
