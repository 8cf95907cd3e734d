from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Context, Snippet
from dgemma_engine.protocol.remote_messages import QuestionText
from dgemma_engine.protocol.text_delta import Piece

from tests.engine.http_api.running_server import FREE_PORT, running_server, until

QUESTION = QuestionText.of(Context(document="d", prefix="x = ", suffix="\n"))


def body(question: QuestionText = QUESTION, pieces: Sequence[Piece] = (), **other: Any) -> dict[str, Any]:
    values = {"protocol": PROTOCOL, "session": "s", "request": "r", "sum": question.sum}
    return values | {"pieces": list(pieces) or [question.text]} | other


async def test_pieces_of_an_earlier_question_are_put_together() -> None:
    async with running_server() as server:
        assert (await server.post("/v1/engine/infill", body())).status == 200
        later = QuestionText.of(Context(document="d", prefix="x = 1", suffix="\n"))
        end = QUESTION.text.index("x = ") + 4
        pieces = [(0, end), "1", (end, len(QUESTION.text) - end)]
        reply = await server.post("/v1/engine/infill", body(later, pieces, base=QUESTION.sum))
    assert reply.json["answer"]["text"] == "alpha + beta"
    assert [context.prefix for context in server.engine.contexts] == ["x = ", "x = 1"]


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"base": "0" * 64, "pieces": [[0, 4]]}, 409, "is not kept"),
        ({"sum": "0" * 64}, 409, "make another question"),
        ({"base": QUESTION.sum, "session": "another"}, 409, "is not kept"),
        ({"base": QUESTION.sum, "pieces": [[0, 10_000]]}, 400, "do not fit"),
        ({"base": QUESTION.sum, "pieces": [[0, 100]] * 200 + ["x" * 20_000]}, 413, "longer than"),
        ({"protocol": PROTOCOL + 1}, 400, f"The protocol of this engine is {PROTOCOL}, not {PROTOCOL + 1}"),
        ({"session": ""}, 400, "session"),
        ({"pieces": [[0]]}, 400, "pieces"),
    ],
)
async def test_wrong_pieces_are_refused(change: dict[str, Any], status: int, reason: str) -> None:
    async with running_server(settings=replace(FREE_PORT, max_body_bytes=30_000)) as server:
        await server.post("/v1/engine/infill", body())
        reply = await server.post("/v1/engine/infill", body() | change)
    assert reply.status == status
    assert reason in reply.json["error"]["message"]
    assert reply.json["protocol"] == PROTOCOL, "a client of another version reads which one is needed"
    assert len(server.engine.contexts) == 1


@pytest.mark.parametrize("text", ["7", "[]", '{"document": 3}', '{"document": "d"}', "{", "[" * 3_000])
async def test_question_that_is_no_context_is_refused(text: str) -> None:
    async with running_server() as server:
        reply = await server.post("/v1/engine/infill", body(QuestionText.read(text)))
    assert (reply.status, server.engine.contexts) == (400, [])


async def test_long_list_in_a_question_is_refused() -> None:
    snippets = (Snippet(path="a", text="b"),) * 3
    asked = QuestionText.of(Context(document="d", prefix="", suffix="", snippets=snippets))
    async with running_server(settings=replace(FREE_PORT, max_items=2)) as server:
        reply = await server.post("/v1/engine/infill", body(asked))
    assert reply.status == 400 and "more than 2 entries" in reply.json["error"]["message"]


async def test_question_about_a_folder_of_the_engines_machine_is_refused() -> None:
    asked = QuestionText.of(Context(document="d", prefix="", suffix="", folder="/home/ann/secret"))
    async with running_server() as server:
        for path in ("/v1/engine/infill", "/v1/engine/trace"):
            reply = await server.post(path, body(asked))
            assert reply.status == 400 and "names no folder" in reply.json["error"]["message"]
    assert server.engine.contexts == []


async def test_request_is_cancelled_by_its_name_only_within_its_session() -> None:
    slow = QuestionText.of(Context(document="d", prefix="SLOW", suffix="", deadline_ms=60_000))
    async with running_server() as server:
        asking = asyncio.create_task(server.post("/v1/engine/infill", body(slow, request="mine")))
        await until(lambda: bool(server.engine.contexts))
        await server.post("/v1/engine/cancel", {"session": "another", "request": "mine"})
        await server.post("/v1/engine/cancel", {"session": "s", "request": "other"})
        await asyncio.sleep(0.05)
        assert server.engine.num_cancelled == 0
        await server.post("/v1/engine/cancel", {"session": "s", "request": "mine"})
        assert (await asking).json["answer"]["finish"] == "cancelled"
    assert server.engine.num_cancelled == 1


async def test_cancellation_that_arrives_before_its_request_counts() -> None:
    slow = QuestionText.of(Context(document="d", prefix="SLOW", suffix="", deadline_ms=60_000))
    async with running_server() as server:
        await server.post("/v1/engine/cancel", {"session": "s", "request": "early"})
        reply = await server.post("/v1/engine/infill", body(slow, request="early"))
    assert reply.json["answer"]["finish"] == "cancelled"


async def test_older_question_that_comes_late_does_not_end_the_newer_one() -> None:
    slow = QuestionText.of(Context(document="d", prefix="LATER", suffix="", deadline_ms=60_000))
    async with running_server() as server:
        newer = asyncio.create_task(server.post("/v1/engine/infill", body(slow, request="b", number=2)))
        await until(lambda: bool(server.engine.contexts))
        older = await server.post("/v1/engine/infill", body(request="a", number=1))
        assert older.json["answer"]["finish"] == "cancelled"
        assert (await newer).json["answer"]["text"] == "alpha + beta"
    assert len(server.engine.contexts) == 1


async def test_second_try_of_a_request_ends_the_first() -> None:
    slow = QuestionText.of(Context(document="d", prefix="SLOW", suffix="", deadline_ms=60_000))
    async with running_server() as server:
        first = asyncio.create_task(server.post("/v1/engine/infill", body(slow)))
        await until(lambda: bool(server.engine.contexts))
        assert (await server.post("/v1/engine/infill", body())).json["answer"]["text"] == "alpha + beta"
        assert (await first).json["answer"]["finish"] == "cancelled"


async def test_every_path_needs_the_key() -> None:
    keys = ApiKeys.read(None, {"DGEMMA_API_KEY": "0123456789abcdef"})
    async with running_server(settings=HttpSettings(bind=FREE_PORT.bind, keys=keys)) as server:
        assert (await server.get("/v1/engine")).status == 401
        for name in ("infill", "trace", "definitions", "cancel"):
            assert (await server.post(f"/v1/engine/{name}", body())).status == 401
        assert (await server.get("/v1/engine", Authorization="Bearer 0123456789abcdef")).status == 200


async def test_state_names_no_path() -> None:
    async with running_server() as server:
        reply = await server.get("/v1/engine")
    assert reply.json["state"] == "ready"
    assert "/home" not in reply.body.decode()
