from __future__ import annotations

from typing import Any

import pytest
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.protocol.messages import Extent, Snippet

from tests.engine.http_api.running_server import AnsweringEngine, running_server

# As llama.vim sends it.
VIM: dict[str, Any] = {
    "id_slot": 0,
    "input_prefix": "def add(a, b):\n",
    "input_suffix": "\n\nprint(add(1, 2))\n",
    "input_extra": [{"text": "x = 1\n", "time": [1, 2], "filename": "other.py"}, {"text": "", "filename": "empty.py"}],
    "prompt": "    return ",
    "n_predict": 128,
    "stop": [],
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.90,
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 250,
    "response_fields": ["content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached", "no/such"],
}


async def test_infill_as_llama_vim_asks_has_flat_fields_and_compact_content() -> None:
    async with running_server() as server:
        reply = await server.post("/infill", VIM)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert b'"content":"alpha + beta"' in reply.body and b"\n" not in reply.body
    assert reply.json == {
        "content": "alpha + beta",
        "timings/prompt_n": 14,
        "timings/predicted_ms": 4.0,
        "truncated": False,
        "tokens_cached": 17,
    }
    (context,) = server.engine.contexts
    assert context.prefix == "def add(a, b):\n    return "
    assert context.suffix == VIM["input_suffix"]
    assert context.snippets == (Snippet(path="other.py", text="x = 1\n"),)
    assert (context.max_middle_tokens, context.deadline_ms, context.speculative) == (128, 1_000.0, False)


async def test_infill_without_response_fields_has_everything() -> None:
    async with running_server() as server:
        reply = await server.post("/infill", {"input_prefix": "x = ", "input_suffix": "", "response_fields": []})
    assert reply.json["content"] == "alpha + beta"
    assert (reply.json["stop"], reply.json["stop_type"], reply.json["model"]) == (True, "eos", "fake")
    assert reply.json["timings"]["prompt_ms"] == 4.0


async def test_warm_up_is_a_speculative_request_of_one_token() -> None:
    async with running_server() as server:
        reply = await server.post("/infill", VIM | {"n_predict": 0, "response_fields": [""]})
    assert (reply.status, reply.json) == (200, {})
    (context,) = server.engine.contexts
    assert (context.speculative, context.max_middle_tokens) == (True, 1)


@pytest.mark.parametrize("field", ["n_cmpl", "n"])
async def test_several_candidates_are_a_list(field: str) -> None:
    async with running_server(AnsweringEngine("one", "two", "two", "three")) as server:
        reply = await server.post("/infill", {"input_prefix": "x = ", "input_suffix": "", field: 3})
    assert [one["content"] for one in reply.json] == ["one", "two", "three"]
    assert [one["index"] for one in reply.json] == [0, 1, 2]


async def test_null_counts_as_absent() -> None:
    nothing = dict.fromkeys(("prompt", "input_extra", "n_predict", "n", "n_cmpl", "stop", "seed", "stream"))
    async with running_server() as server:
        reply = await server.post("/infill", {"input_prefix": "x = ", "input_suffix": "", **nothing})
    assert reply.status == 200
    assert server.engine.contexts[0].max_middle_tokens == 256


async def test_stop_word_cuts_the_text_and_is_named() -> None:
    async with running_server(AnsweringEngine("alpha\nbeta")) as server:
        reply = await server.post("/infill", {"input_prefix": "x = ", "input_suffix": "", "stop": ["\n", ""]})
    assert (reply.json["content"], reply.json["stop_type"], reply.json["stopping_word"]) == ("alpha", "word", "\n")
    assert server.engine.contexts[0].extent is Extent.LINE


async def test_empty_answer_is_an_empty_content() -> None:
    async with running_server() as server:
        reply = await server.post("/infill", {"input_prefix": "NOTHING", "input_suffix": ""})
    assert (reply.status, reply.json["content"], reply.json["stop_type"]) == (200, "", "eos")


async def test_text_that_was_cut_ends_at_a_limit() -> None:
    engine = AnsweringEngine()
    engine.is_cut = True
    async with running_server(engine) as server:
        reply = await server.post("/infill", {"input_prefix": "x = ", "input_suffix": ""})
    assert reply.json["stop_type"] == "limit"


async def test_stream_has_the_text_and_then_the_end_without_done() -> None:
    async with running_server() as server:
        reply = await server.post("/completion", {"prompt": "x = ", "stream": True, "n_predict": 8})
    assert reply.headers["content-type"].startswith("text/event-stream")
    piece, end = reply.events
    assert (piece["content"], piece["stop"]) == ("alpha + beta", False)
    assert (end["content"], end["stop"], end["stop_type"]) == ("", True, "eos")


async def test_completion_reads_a_template() -> None:
    async with running_server() as server:
        reply = await server.post("/completion", {"prompt": "<PRE> x =  <SUF>\ny <MID>", "max_tokens": 5})
    assert reply.json["content"] == "alpha + beta"
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens) == ("x = ", "\ny", 5)


async def test_shared_path_is_native_with_n_predict_and_openai_without() -> None:
    async with running_server() as server:
        native = await server.post("/completions", {"prompt": "x = ", "n_predict": 8})
        other = await server.post("/completions", {"prompt": "x = ", "model": "m", "max_tokens": 8})
    assert native.json["content"] == other.json["choices"][0]["text"] == "alpha + beta"


async def test_props_and_models_name_the_model_and_no_path() -> None:
    async with running_server() as server:
        props, models = await server.get("/props"), await server.get("/v1/models")
    assert props.json["default_generation_settings"]["n_ctx"] > 0
    assert props.json["model_path"] == "fake"
    (data,), (model,) = models.json["data"], models.json["models"]
    assert (data["id"], data["owned_by"], data["status"]["value"]) == ("fake", "llamacpp", "loaded")
    assert model["name"] == "fake" and b"/home" not in props.body + models.body


async def test_health_says_whether_the_model_is_loaded() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        assert (await server.get("/health")).json == {"status": "ok"}
        engine.status = ConnectionStatus(state=ConnectionState.LOADING, percent=3)
        loading = await server.get("/health")
    assert (loading.status, loading.headers["retry-after"]) == (503, "5")
    assert loading.json["error"] == {
        "message": "Loading model", "type": "unavailable_error", "code": 503, "param": None
    }  # fmt: skip
    assert engine.num_woken == 2


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"input_prefix": "x"}, "input_suffix"),
        ({"input_prefix": 7, "input_suffix": ""}, "$.input_prefix"),
        ({"input_prefix": "", "input_suffix": "", "n_predict": -2}, "$.n_predict"),
        ({"input_prefix": "", "input_suffix": "", "n": 0}, "$.n"),
        ({"input_prefix": "", "input_suffix": "", "stop": [1]}, "$.stop"),
        ({"input_prefix": "", "input_suffix": "", "stop": ["secret"] * 257}, "stop"),
        ({"input_prefix": "", "input_suffix": "", "input_extra": {"a": "secret"}}, "$.input_extra"),
    ],
)
async def test_wrong_field_is_named_and_its_value_is_not_repeated(body: dict[str, Any], place: str) -> None:
    async with running_server() as server:
        reply = await server.post("/infill", body)
    error = reply.json["error"]
    assert (reply.status, error["code"], error["type"]) == (400, 400, "invalid_request_error")
    assert place in error["message"] and "secret" not in error["message"]


async def test_lost_engine_is_unavailable_and_its_message_is_not_sent() -> None:
    async with running_server() as server:
        reply = await server.post("/infill", {"input_prefix": "LOST", "input_suffix": ""})
    assert (reply.status, reply.json["error"]["type"]) == (503, "unavailable_error")
    assert b"/tmp" not in reply.body
    assert reply.headers["x-should-retry"] == "false"
