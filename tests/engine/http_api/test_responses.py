from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import DONE, event, event_response, json_response, stream_response


def test_json_is_compact_and_one_line() -> None:
    assert json_response({"content": "a\nb", "n": [1, 2]}).body == b'{"content":"a\\nb","n":[1,2]}'


def test_events_have_a_blank_after_data_and_no_carriage_return() -> None:
    assert event_response([event({"a": 1}), DONE]).body == b'data: {"a":1}\n\ndata: [DONE]\n\n'


async def test_refusal_before_the_first_event_is_raised() -> None:
    async def events() -> AsyncGenerator[bytes]:
        raise Refusal(status=503, message="Loading model")
        yield b""

    with pytest.raises(Refusal, match="Loading model"):
        await stream_response(events())


async def test_stream_whose_client_leaves_while_it_is_sent_is_closed() -> None:
    closed: list[bool] = []

    async def events() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"data: 1\n\n"
        finally:
            closed.append(True)

    sending = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await sending.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.sleep(60)

    # Held here, so that only the response closes the generator.
    held = events()
    response = await stream_response(held)
    await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)  # pyright: ignore[reportArgumentType]
    assert closed == [True]


@pytest.mark.parametrize("status", [200, 499, 502])
def test_refusal_with_a_status_that_is_no_refusal_raises_value_error(status: int) -> None:
    with pytest.raises(ValueError, match=r"self\.status="):
        Refusal(status=status, message="")
