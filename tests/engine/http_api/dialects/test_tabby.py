from __future__ import annotations

from typing import Any

import pytest
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.protocol.messages import Snippet

from tests.engine.http_api.running_server import AnsweringEngine, running_server

# As tabby-agent sends it.
BODY: dict[str, Any] = {
    "language": "python",
    "segments": {
        "prefix": "x = ",
        "suffix": "\ny",
        "filepath": "lib/a.py",
        "git_url": "git@example.org:a/b",
        "declarations": [{"filepath": "lib/d.py", "body": "def d(): ..."}],
        "relevant_snippets_from_changed_files": [
            {"filepath": "lib/best.py", "body": "best", "score": 2.0},
            {"filepath": "lib/good.py", "body": "good", "score": 1.0},
        ],
        "relevant_snippets_from_recently_opened_files": [{"filepath": "lib/o.py", "body": "opened", "score": 9.0}],
        "clipboard": "what was copied",
    },
    "user": "someone",
    "temperature": 0.1,
}


async def test_segments_are_the_question_and_candidates_the_choices() -> None:
    async with running_server(AnsweringEngine("one", "two", "three", "four")) as server:
        reply = await server.post("/v1/completions", BODY)
    assert reply.json == {
        "id": "cmpl-1",
        "choices": [{"index": 0, "text": "one"}, {"index": 1, "text": "two"}, {"index": 2, "text": "three"}],
        "mode": "standard",
    }
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix) == ("x = ", "\ny")
    assert (context.path, context.language) == ("lib/a.py", "python")
    assert [one.text for one in context.snippets] == ["opened", "good", "best", "def d(): ..."]
    assert context.snippets[-1].path == "lib/d.py" and context.max_middle_tokens == 256


async def test_segments_other_than_the_prefix_are_optional() -> None:
    body = {"language": "unknown", "segments": {"prefix": "x = ", "suffix": None, "clipboard": ""}}
    async with running_server() as server:
        reply = await server.post("/v1/completions", body)
    assert [one["text"] for one in reply.json["choices"]] == ["alpha + beta"]
    assert (server.engine.contexts[0].suffix, server.engine.contexts[0].language) == ("", "")


async def test_edit_history_becomes_the_edits() -> None:
    diff = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    segments = BODY["segments"] | {"edit_history": {"original_code": "", "edits_diff": diff, "current_version": ""}}
    async with running_server() as server:
        await server.post("/v1/completions", BODY | {"segments": segments})
    assert server.engine.contexts[0].edits == (Snippet(path="lib/a.py", text="-x = 1\n+x = 2\n"),)


async def test_next_edit_is_answered_with_nothing() -> None:
    async with running_server() as server:
        reply = await server.post("/v1/completions", BODY | {"mode": "next_edit_suggestion"})
    assert [one["text"] for one in reply.json["choices"]] == [""]
    assert (reply.json["mode"], server.engine.contexts) == ("next_edit_suggestion", [])


async def test_empty_answer_is_one_choice_with_an_empty_text() -> None:
    async with running_server() as server:
        reply = await server.post("/v1/completions", {"segments": {"prefix": "NOTHING"}})
    assert reply.json["choices"] == [{"index": 0, "text": ""}]


@pytest.mark.parametrize("body", [{"prompt": "x = "}, BODY | {"prompt": "x = "}])
async def test_body_with_a_prompt_is_openais(body: dict[str, Any]) -> None:
    async with running_server() as server:
        reply = await server.post("/v1/completions", body)
    assert reply.json["object"] == "text_completion"


@pytest.mark.parametrize(
    ("segments", "place"),
    [
        ({}, "prefix"),
        ({"prefix": 7}, "$.segments.prefix"),
        ({"prefix": "", "declarations": [{"filepath": "secret"}]}, "body"),
        ({"prefix": "", "edit_history": "secret"}, "$.segments.edit_history"),
        ({"prefix": "", "declarations": [{"filepath": "", "body": "secret"}] * 257}, "segments.declarations"),
    ],
)
async def test_wrong_field_is_named_and_its_value_is_not_repeated(segments: dict[str, Any], place: str) -> None:
    async with running_server() as server:
        reply = await server.post("/v1/completions", {"segments": segments})
    error = reply.json["error"]
    assert (reply.status, error["code"], error["type"]) == (400, 400, "invalid_request_error")
    assert place in error["message"] and "secret" not in error["message"]


async def test_health_names_the_model_and_nothing_of_the_machine() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        health = (await server.get("/v1/health")).json
        engine.status = ConnectionStatus(state=ConnectionState.LOADING, percent=3)
        loading = await server.get("/v1/health")
    assert (health["status"], health["model"], health["device"]) == ("ok", "fake", "cpu")
    assert (health["arch"], health["cpu_info"], health["cpu_count"], health["cuda_devices"]) == ("", "", 0, [])
    assert {"git_describe", "git_sha", "build_date", "build_timestamp"} == set(health["version"])
    assert (loading.status, loading.json["error"]["message"]) == (503, "Loading model")


async def test_events_get_an_empty_answer() -> None:
    body = {"type": "view", "completion_id": "cmpl-1", "choice_index": 0, "view_id": "v", "elapsed": 250}
    async with running_server() as server:
        reply = await server.post("/v1/events?select_kind=line", body)
        wrong = await server.post("/v1/events", {"type": 7})
    assert (reply.status, reply.body) == (200, b"")
    assert (wrong.status, "$.type" in wrong.json["error"]["message"]) == (400, True)


async def test_setting_switches_telemetry_off() -> None:
    async with running_server() as server:
        reply = await server.get("/v1beta/server_setting")
    assert reply.json == {"disable_client_side_telemetry": True}
