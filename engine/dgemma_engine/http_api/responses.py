"""Values -> responses: compact JSON, server-sent events, and the error shape that most dialects share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dgemma_engine.http_api.refusal import Refusal


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns compact JSON in one line: some clients look for `"content":"` in the raw text.

    Args:
        value: a `msgspec.Struct`, or what `msgspec` encodes.
        status: of HTTP.
        headers: further ones.
    """
    return Response(
        msgspec.json.encode(value), status_code=status, headers=dict(headers or {}), media_type="application/json"
    )


def event(value: object) -> bytes:
    """Returns one server-sent event: `data: `, compact JSON, two newlines; no comments, which some clients misread."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def lines_response(values: Sequence[object]) -> Response:
    """Returns a stream of JSON values, one in a line, that are all known already: Ollama's form of a stream."""
    lines = b"".join(msgspec.json.encode(value) + b"\n" for value in values)
    return Response(lines, media_type="application/x-ndjson")


DONE = b"data: [DONE]\n\n"
"""The event that ends a stream of OpenAI's API."""


def event_response(events: Sequence[bytes]) -> Response:
    """Returns a stream whose events are all known already."""
    return Response(b"".join(events), media_type="text/event-stream")


async def stream_response(events: AsyncGenerator[bytes]) -> Response:
    """Returns a stream of events as they come. Waits for the first: a fault before it is an ordinary error.

    Args:
        events: closed when the client leaves, whether or not all were sent; must have at least one.
    """
    return _EventStream(await anext(events), events)


class _EventStream(StreamingResponse):
    def __init__(self, first: bytes, events: AsyncGenerator[bytes]) -> None:
        self._first = first
        self._events = events
        super().__init__(self._all(), media_type="text/event-stream")

    async def _all(self) -> AsyncGenerator[bytes]:
        yield self._first
        async for one in self._events:
            yield one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


def error_object(refusal: Refusal, *, code: int | str | None, further: Mapping[str, object] | None = None) -> Response:
    """Returns the shape that llama.cpp, OpenAI and Mistral have in common.

    Args:
        refusal: the refusal.
        code: of the error; llama.cpp sends the status, OpenAI a word or nothing.
        further: fields beside `error`.
    """
    error = {"message": refusal.message, "type": refusal.kind, "code": code, "param": None}
    return json_response({"error": error, **(further or {})}, status=refusal.status, headers=refusal.headers)
