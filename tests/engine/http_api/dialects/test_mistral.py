from __future__ import annotations

from typing import Any

import pytest
from dgemma_engine.protocol.messages import Snippet

from tests.engine.http_api.running_server import AnsweringEngine, running_server

BODY: dict[str, Any] = {"model": "codestral-latest", "prompt": "x = ", "suffix": "\ny", "max_tokens": 64}


@pytest.mark.parametrize("path", ["/v1/fim/completions", "/fim/completions"])
async def test_text_is_in_the_fields_that_clients_of_mistral_and_of_inception_read(path: str) -> None:
    async with running_server() as server:
        reply = await server.post(path, BODY | {"random_seed": 7, "min_tokens": None, "temperature": 0.2})
    body = reply.json
    assert body.pop("created") > 1_700_000_000
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert body == {
        "id": "fim-1",
        "object": "chat.completion",
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "text": "alpha + beta",
                "message": {"role": "assistant", "content": "alpha + beta"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens, context.seed) == ("x = ", "\ny", 64, 7)


async def test_stream_has_the_text_then_reason_and_usage_then_done() -> None:
    async with running_server() as server:
        reply = await server.post("/v1/fim/completions", BODY | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.body.endswith(b"data: [DONE]\n\n") and b"\r" not in reply.body and b"error" not in reply.body
    text, end, _done = reply.events
    (first,), (last,) = text["choices"], end["choices"]
    assert (first["text"], first["delta"]["content"], first["finish_reason"]) == ("alpha + beta", "alpha + beta", None)
    assert (last["text"], last["delta"]["content"], last["finish_reason"]) == ("", "", "stop")
    assert (text["usage"], end["usage"]["total_tokens"]) == (None, 5)
    assert text["id"] == end["id"] and text["object"] == "chat.completion.chunk"


async def test_stop_word_cuts_the_text() -> None:
    async with running_server(AnsweringEngine("alpha\nbeta")) as server:
        reply = await server.post("/v1/fim/completions", BODY | {"stop": ["\n"]})
    (choice,) = reply.json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("alpha", "stop")


async def test_text_that_was_cut_finishes_with_length() -> None:
    engine = AnsweringEngine()
    engine.is_cut = True
    async with running_server(engine) as server:
        reply = await server.post("/v1/fim/completions", BODY | {"stop": []})
    assert reply.json["choices"][0]["finish_reason"] == "length"


async def test_empty_answer_is_an_empty_text() -> None:
    async with running_server() as server:
        reply = await server.post("/v1/fim/completions", {"model": "m", "prompt": "NOTHING"})
    (choice,) = reply.json["choices"]
    assert (choice["text"], choice["message"]["content"], choice["finish_reason"]) == ("", "", "stop")


async def test_other_files_of_continue_are_read_from_the_prompt() -> None:
    prompt = "+++++ lib/a.py\nA = 1\n\n+++++ lib/b.py\nx = "
    async with running_server() as server:
        await server.post("/v1/fim/completions", BODY | {"prompt": prompt})
        await server.post("/v1/fim/completions", BODY | {"prompt": "+++++ no line"})
    read, plain = server.engine.contexts
    assert (read.prefix, read.suffix, read.path, read.language) == ("x = ", "\ny", "lib/b.py", "python")
    assert read.snippets == (Snippet(path="lib/a.py", text="A = 1\n\n"),)
    assert (plain.prefix, plain.snippets) == ("+++++ no line", ())


async def test_blank_suffix_of_inceptions_clients_is_no_text() -> None:
    async with running_server() as server:
        await server.post("/v1/fim/completions", BODY | {"suffix": "<|endoftext|>"})
    assert server.engine.contexts[0].suffix == ""


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"prompt": "x"}, ["body", "model"]),
        ({"model": "m"}, ["body", "prompt"]),
        (BODY | {"prompt": None}, ["body", "prompt"]),
        (BODY | {"max_tokens": "secret"}, ["body", "max_tokens"]),
        (BODY | {"stop": ["secret"] * 257}, ["body", "stop"]),
        ([], ["body"]),
    ],
)
async def test_wrong_field_is_a_list_of_details_and_a_message(body: Any, place: list[str]) -> None:
    async with running_server() as server:
        reply = await server.post("/v1/fim/completions", body)
    (detail,) = reply.json["detail"]
    assert (reply.status, detail["loc"], detail["type"]) == (422, place, "value_error")
    assert detail["msg"] == reply.json["error"]["message"] and b"secret" not in reply.body
    assert reply.json["error"]["type"] == "invalid_request_error"


async def test_other_refusals_have_the_message_only() -> None:
    async with running_server() as server:
        lost = await server.post("/v1/fim/completions", BODY | {"prompt": "LOST"})
        typed = await server.post("/v1/fim/completions", BODY, Content_Type="text/plain")
    assert (lost.status, lost.json["error"]["type"], "detail" in lost.json) == (503, "unavailable_error", False)
    assert (typed.status, "detail" in typed.json) == (415, False)
