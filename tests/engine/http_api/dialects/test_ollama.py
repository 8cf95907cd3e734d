from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from dgemma_engine.protocol.messages import Extent

from tests.engine.http_api.running_server import AnsweringEngine, Reply, running_server

BODY: dict[str, Any] = {"model": "qwen2.5-coder", "prompt": "x = ", "suffix": "\ny"}


def lines(reply: Reply) -> list[Any]:
    *found, rest = reply.body.split(b"\n")
    assert rest == b""
    return [json.loads(line) for line in found]


async def test_stream_is_the_default_and_has_a_line_for_the_text_and_one_for_the_end() -> None:
    async with running_server() as server:
        reply = await server.post("/api/generate", BODY | {"options": {"num_predict": 64, "seed": 7, "num_ctx": 2_048}})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    text, end = lines(reply)
    datetime.fromisoformat(text.pop("created_at"))
    assert text == {"model": "fake", "response": "alpha + beta", "done": False}
    datetime.fromisoformat(end.pop("created_at"))
    assert end == {
        "model": "fake",
        "response": "",
        "done": True,
        "done_reason": "stop",
        "total_duration": 8_000_000,
        "load_duration": 0,
        "prompt_eval_count": 2,
        "prompt_eval_duration": 4_000_000,
        "eval_count": 3,
        "eval_duration": 4_000_000,
    }
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens, context.seed) == ("x = ", "\ny", 64, 7)


async def test_without_a_stream_it_is_one_object() -> None:
    async with running_server() as server:
        reply = await server.post("/api/generate", BODY | {"stream": False})
    assert reply.headers["content-type"] == "application/json"
    assert (reply.json["response"], reply.json["done"], reply.json["done_reason"]) == ("alpha + beta", True, "stop")


@pytest.mark.parametrize("raw", [True, False, None])
async def test_template_is_read_with_and_without_raw(raw: bool | None) -> None:
    prompt = "<PRE> x =  <SUF>\ny <MID>"
    async with running_server() as server:
        await server.post("/api/generate", {"model": "codellama", "prompt": prompt, "raw": raw})
    assert (server.engine.contexts[0].prefix, server.engine.contexts[0].suffix) == ("x = ", "\ny")


async def test_suffix_is_read_with_raw_too() -> None:
    async with running_server() as server:
        await server.post("/api/generate", BODY | {"raw": True, "keep_alive": 1_800})
    assert server.engine.contexts[0].suffix == "\ny"


@pytest.mark.parametrize("place", ["options", "top"])
async def test_stop_words_of_both_places_cut_the_text(place: str) -> None:
    stop = {"stop": ["\n"]}
    body = BODY | ({"options": stop} if place == "options" else stop) | {"stream": False}
    async with running_server(AnsweringEngine("alpha\nbeta")) as server:
        reply = await server.post("/api/generate", body)
    assert (reply.json["response"], reply.json["done_reason"]) == ("alpha", "stop")
    assert server.engine.contexts[0].extent is Extent.LINE


@pytest.mark.parametrize(("num_predict", "sent"), [(-2, 256), (-1, 256), (0, 256), (None, 256), (1, 1), (10**6, 256)])
async def test_limit_of_zero_or_less_is_that_of_the_server(num_predict: int | None, sent: int) -> None:
    async with running_server() as server:
        await server.post("/api/generate", BODY | {"options": {"num_predict": num_predict}})
    assert server.engine.contexts[0].max_middle_tokens == sent
    assert not server.engine.contexts[0].speculative


async def test_text_that_was_cut_ends_at_a_length() -> None:
    engine = AnsweringEngine()
    engine.is_cut = True
    async with running_server(engine) as server:
        reply = await server.post("/api/generate", BODY)
    assert lines(reply)[-1]["done_reason"] == "length"


@pytest.mark.parametrize(
    ("keep_alive", "reason"),
    [(None, "load"), (1_800, "load"), ("30m", "load"), (-1, "load"), (0, "unload"), ("0", "unload"), ("0s", "unload")],
)
async def test_empty_prompt_loads_or_unloads_and_asks_for_no_text(keep_alive: Any, reason: str) -> None:
    async with running_server() as server:
        reply = await server.post("/api/generate", {"model": "m", "prompt": "", "keep_alive": keep_alive})
    assert (reply.json["response"], reply.json["done"], reply.json["done_reason"]) == ("", True, reason)
    assert server.engine.contexts == []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"prompt": "x"}, "model"),
        (BODY | {"prompt": 7}, "$.prompt"),
        (BODY | {"options": {"num_predict": "secret"}}, "$.options.num_predict"),
        (BODY | {"options": {"stop": ["secret"] * 257}}, "options.stop"),
        (BODY | {"raw": True, "system": "secret"}, "raw mode"),
        (BODY | {"raw": True, "template": "secret"}, "raw mode"),
        (BODY | {"raw": True, "context": [1]}, "raw mode"),
    ],
)
async def test_wrong_field_is_one_text_that_names_it(body: dict[str, Any], place: str) -> None:
    async with running_server() as server:
        reply = await server.post("/api/generate", body)
    assert (reply.status, list(reply.json)) == (400, ["error"])
    assert place in reply.json["error"] and "secret" not in reply.json["error"]


async def test_every_refusal_under_api_is_one_text() -> None:
    async with running_server() as server:
        replies = [
            await server.post("/api/generate", BODY | {"prompt": "LOST"}),
            await server.post("/api/generate", BODY, Content_Type="text/plain"),
            await server.get("/api/generate"),
            await server.post("/api/pull", {"model": "m"}),
        ]
    assert [reply.status for reply in replies] == [503, 415, 405, 404]
    assert all(isinstance(reply.json["error"], str) for reply in replies)


@pytest.mark.parametrize("body", [{"model": "any"}, {"name": "any"}])
async def test_show_says_that_a_suffix_is_understood(body: dict[str, Any]) -> None:
    async with running_server() as server:
        reply = await server.post("/api/show", body)
    shown = reply.json
    assert ".Suffix" in shown["template"] and {"completion", "insert"} <= set(shown["capabilities"])
    assert shown["model_info"][f"{shown['model_info']['general.architecture']}.context_length"] > 0
    datetime.fromisoformat(shown["modified_at"])
    assert b"/home" not in reply.body


async def test_show_needs_a_name() -> None:
    async with running_server() as server:
        reply = await server.post("/api/show", {"model": ""})
    assert (reply.status, reply.json) == (400, {"error": "model is required"})


async def test_tags_and_running_models_name_the_one_model() -> None:
    async with running_server() as server:
        (tag,) = (await server.get("/api/tags")).json["models"]
        (running,) = (await server.get("/api/ps")).json["models"]
    details = tag.pop("details")
    assert {"format", "family", "families", "parameter_size", "quantization_level"} <= set(details)
    datetime.fromisoformat(tag["modified_at"])
    assert (tag["name"], tag["model"], tag["size"], len(tag["digest"])) == ("fake", "fake", 0, 64)
    assert (running["name"], running["digest"]) == ("fake", tag["digest"])


async def test_version_and_greeting() -> None:
    async with running_server() as server:
        version, greeting = await server.get("/api/version"), await server.get("/")
        head = await server.request("HEAD", "/", None)
    assert version.json["version"].count(".") >= 2
    assert (greeting.body, head.status, head.body) == (b"Ollama is running", 200, b"")
