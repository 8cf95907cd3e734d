from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from dgemma_engine.http_api.completions.completion_service import CompletionService
from dgemma_engine.http_api.dialects.infill import InfillBody, InfillDialect
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.http_api.operation import Call
from dgemma_engine.protocol.messages import Context, DocumentEdges, Extent, Infill, Snippet
from starlette.responses import StreamingResponse

from tests.engine.http_api.running_server import AnsweringEngine, running_server, until


def test_body_has_every_field_of_the_context_with_its_default() -> None:
    # `drafts` is an id within a connection, `folder` a path of this machine; `document` has a default here only.
    own = ("drafts", "folder", "document")
    fields = {one.name: one for one in dataclasses.fields(Context) if one.name not in own}
    assert set(InfillBody.__struct_fields__) == {*fields, "document", "stream"}
    body, context = InfillBody(prefix="p", suffix="s"), Context(document="d", prefix="p", suffix="s")
    assert {name: getattr(body, name) for name in fields} == {name: getattr(context, name) for name in fields}


async def test_all_fields_reach_the_engine() -> None:
    sent = {
        "document": "d",
        "prefix": "x = ",
        "suffix": "\n",
        "path": "a.py",
        "language": "python",
        "snippets": [{"path": "b.py", "text": "B"}],
        "edits": [{"path": "a.py", "text": "-a\n+b\n"}],
        "extent": "block",
        "max_middle_tokens": 7,
        "deadline_ms": 50,
        "seed": 3,
        "insistent": True,
        "least_column": 4,
        "edges": {"above": "above\n", "is_cut": True},
    }
    async with running_server() as server:
        reply = await server.post("/v1/infill", sent)
    assert server.engine.contexts == [
        Context(
            document="127.0.0.1/d",
            prefix="x = ",
            suffix="\n",
            path="a.py",
            language="python",
            snippets=(Snippet(path="b.py", text="B"),),
            edits=(Snippet(path="a.py", text="-a\n+b\n"),),
            extent=Extent.BLOCK,
            max_middle_tokens=7,
            deadline_ms=50.0,
            seed=3,
            insistent=True,
            least_column=4,
            edges=DocumentEdges(above="above\n", is_cut=True),
        )
    ]
    answer = Infill.from_wire(reply.json)
    assert (answer.text, answer.score, answer.candidates[0].text) == ("alpha + beta", 0.5, "alpha + beta")
    assert answer.timings_ms["encode"] == 3.0


async def test_document_without_a_name_is_found_by_its_text() -> None:
    async with running_server() as server:
        for prefix in ("x = ", "x = 1", "other"):
            await server.post("/v1/infill", {"prefix": prefix, "suffix": ""})
    first, second, other = (context.document for context in server.engine.contexts)
    assert first == second != other


async def test_stream_has_drafts_and_then_the_answer() -> None:
    async with running_server() as server:
        reply = await server.post("/v1/infill", {"prefix": "x = ", "suffix": "", "stream": True})
    *drafts, last = reply.events
    assert [one["draft"]["step"] for one in drafts][-1] == 2
    assert drafts[0]["draft"]["spans"][0]["confidence"] == 0.5
    assert last["answer"]["text"] == "alpha + beta"


async def test_engine_lost_within_a_stream_is_its_last_event() -> None:
    async with running_server() as server:
        reply = await server.post("/v1/infill", {"prefix": "LOST", "suffix": "", "stream": True})
    assert reply.status == 200
    assert reply.events[-1]["error"]["code"] == 503 and b"/tmp" not in reply.body


async def test_client_that_leaves_a_stream_ends_the_work() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        reader, writer = await server.open()
        body = json.dumps({"prefix": "SLOW", "suffix": "", "stream": True}).encode()
        writer.write(server.head("POST", "/v1/infill", body) + body)
        await reader.readuntil(b'"draft"')
        writer.close()
        await until(lambda: engine.num_cancelled == 1)


async def test_stream_that_is_closed_between_two_drafts_ends_the_work() -> None:
    engine = AnsweringEngine()
    service = CompletionService(engine, HttpSettings(), clock=lambda: 0.0)
    body = json.dumps({"prefix": "SLOW", "suffix": "", "stream": True}).encode()
    (operation,) = InfillDialect().operations()
    response = await operation.run(Call(service=service, caller="me", path="/v1/infill", parameters={}, body=body))
    assert isinstance(response, StreamingResponse)
    leaving = asyncio.Event()

    async def receive() -> Any:
        await leaving.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            leaving.set()
            await asyncio.sleep(60)

    async with asyncio.timeout(5):
        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    assert engine.num_cancelled == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"suffix": ""}, "prefix"),
        ({"prefix": "", "suffix": "", "extent": "secret"}, "$.extent"),
        ({"prefix": "", "suffix": "", "max_middle_tokens": 0}, "$.max_middle_tokens"),
        ({"prefix": "", "suffix": "", "deadline_ms": 1e9}, "$.deadline_ms"),
        ({"prefix": "", "suffix": "", "snippets": [{"path": "secret"}]}, "text"),
        ({"prefix": "", "suffix": "", "edges": {"num_before": 9}}, "num_before"),
        ({"prefix": "", "suffix": "", "speculative": True, "on_demand": True}, "on_demand"),
    ],
)
async def test_wrong_field_is_named_and_its_value_is_not_repeated(body: dict[str, Any], place: str) -> None:
    async with running_server() as server:
        reply = await server.post("/v1/infill", body)
    message = reply.json["error"]["message"]
    assert reply.status == 400
    assert place in message and "secret" not in message and "self" not in message


@pytest.mark.parametrize(("prefix", "suffix"), [("a\r\nx = ", ""), ("x = ", "\r\nb\r\n")])
async def test_document_with_windows_line_ends_gets_them(prefix: str, suffix: str) -> None:
    sent = {"prefix": prefix, "suffix": suffix, "edges": {"num_before": len(prefix) - 4, "num_after": len(suffix)}}
    async with running_server(AnsweringEngine("alpha\nbeta", "gamma\n")) as server:
        reply = await server.post("/v1/infill", sent)
        events = (await server.post("/v1/infill", sent | {"stream": True})).events
    for answer in (reply.json, events[-1]["answer"]):
        assert answer["text"] == "alpha\r\nbeta"
        assert [one["text"] for one in answer["candidates"]] == ["alpha\r\nbeta", "gamma\r\n"]
    (context, _) = server.engine.contexts
    assert (context.prefix, context.suffix) == (prefix.replace("\r", ""), suffix.replace("\r", ""))
    assert (context.edges.num_before, context.edges.num_after) == (len(context.prefix) - 4, len(context.suffix))
