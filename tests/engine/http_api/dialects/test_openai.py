from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.engine.http_api.running_server import AnsweringEngine, running_server

PATHS = ["/v1/completions", "/beta/completions", "/completions", "/v1/engines/copilot-codex/completions"]


@pytest.mark.parametrize("path", PATHS)
async def test_suffix_is_the_text_after_the_cursor(path: str) -> None:
    async with running_server() as server:
        reply = await server.post(path, {"model": "any", "prompt": "x = ", "suffix": "\ny", "max_tokens": 64})
    assert reply.status == 200
    body = reply.json
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "fake",
        "choices": [{"text": "alpha + beta", "index": 0, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens) == ("x = ", "\ny", 64)


async def test_template_in_the_prompt_is_read() -> None:
    prompt = "<|file_sep|>a.py\nA = 1\n<|file_sep|>b.py\n<|fim_prefix|>x = <|fim_suffix|>\ny<|fim_middle|>"
    async with running_server() as server:
        await server.post("/v1/completions", {"model": "m", "prompt": prompt, "stop": ["<|endoftext|>"]})
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.path, context.language) == ("x = ", "\ny", "b.py", "python")
    assert [(one.path, one.text) for one in context.snippets] == [("a.py", "A = 1\n")]


async def test_template_beside_a_suffix_is_text() -> None:
    prompt = "<PRE> x <SUF>y <MID>"
    async with running_server() as server:
        await server.post("/v1/completions", {"prompt": prompt, "suffix": "z"})
    assert server.engine.contexts[0].prefix == prompt


async def test_blank_suffix_of_a_client_is_no_text() -> None:
    async with running_server() as server:
        await server.post("/v1/completions", {"prompt": "x = ", "suffix": "<|endoftext|>"})
    assert server.engine.contexts[0].suffix == ""


async def test_stream_has_text_then_reason_then_usage_then_done() -> None:
    body = {"prompt": "x = ", "stream": True, "stream_options": {"include_usage": True}}
    async with running_server() as server:
        reply = await server.post("/v1/completions", body)
    assert reply.body.endswith(b"data: [DONE]\n\n") and b"\r" not in reply.body and b"error" not in reply.body
    text, end, usage, _done = reply.events
    assert [text["choices"][0][name] for name in ("text", "finish_reason")] == ["alpha + beta", None]
    assert [end["choices"][0][name] for name in ("text", "finish_reason")] == ["", "stop"]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 4)
    assert text["id"] == end["id"] == usage["id"]


async def test_n_gives_several_choices_and_echo_repeats_the_prompt() -> None:
    async with running_server(AnsweringEngine("one", "two")) as server:
        reply = await server.post("/v1/completions", {"prompt": ["x = "], "n": 5, "echo": True})
    assert [one["text"] for one in reply.json["choices"]] == ["x = one", "x = two"]


@pytest.mark.parametrize(("is_cut", "reason"), [(False, "stop"), (True, "length")])
async def test_finish_reason_says_whether_a_limit_ended_the_text(is_cut: bool, reason: str) -> None:
    engine = AnsweringEngine()
    engine.is_cut = is_cut
    async with running_server(engine) as server:
        reply = await server.post("/v1/completions", {"prompt": "x = "})
    assert reply.json["choices"][0]["finish_reason"] == reason
    assert reply.json["usage"]["completion_tokens"] == 3


async def test_empty_answer_is_one_choice_with_an_empty_text() -> None:
    async with running_server() as server:
        reply = await server.post("/v1/completions", {"prompt": "NOTHING"})
    assert [(one["text"], one["finish_reason"]) for one in reply.json["choices"]] == [("", "stop")]


@pytest.mark.parametrize("body", [{}, {"prompt": []}, {"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"prompt": None}])
async def test_prompt_of_another_kind_is_a_bad_request(body: dict[str, Any]) -> None:
    async with running_server() as server:
        reply = await server.post("/v1/completions", body)
    error = reply.json["error"]
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", None)
    assert "prompt" in error["message"]


async def test_identical_requests_at_once_share_the_work_and_get_different_texts() -> None:
    async with running_server(AnsweringEngine("one", "two", "three")) as server:
        replies = await asyncio.gather(*(server.post("/v1/completions", {"prompt": "LATER"}) for _ in range(3)))
    assert sorted(reply.json["choices"][0]["text"] for reply in replies) == ["one", "three", "two"]
    assert len(server.engine.contexts) == 1
