"""Mistral's own SDK against the HTTP API: the SDK, not this test, decides what is sent and what is accepted."""

from __future__ import annotations

import asyncio

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError

from tests.engine.http_api.running_server import AnsweringEngine, RunningServer, running_server, until


def client_of(server: RunningServer) -> Mistral:
    return Mistral(api_key="none", server_url=server.url)


async def test_completion_with_a_suffix() -> None:
    async with running_server() as server, client_of(server) as client:
        answer = await client.fim.complete_async(
            model="codestral-latest",
            prompt="x = ",
            suffix="\ny",
            max_tokens=64,
            min_tokens=1,
            random_seed=7,
            stop=["\n\n"],
            temperature=0.2,
        )
    (choice,) = answer.choices
    assert choice.message is not None and choice.message.content == "alpha + beta"
    assert (choice.index, choice.finish_reason, answer.usage.total_tokens) == (0, "stop", 5)
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens, context.seed) == ("x = ", "\ny", 64, 7)


async def test_stream_ends_with_a_reason_and_the_usage() -> None:
    engine = AnsweringEngine()
    engine.is_cut = True
    async with running_server(engine) as server, client_of(server) as client:
        stream = await client.fim.stream_async(model="codestral-latest", prompt="x = ", suffix="\ny")
        events = [event.data async for event in stream]
    choices = [one.choices[0] for one in events]
    assert "".join(str(one.delta.content) for one in choices) == "alpha + beta"
    assert [one.finish_reason for one in choices] == [None, "length"]
    assert events[-1].usage is not None and events[-1].usage.completion_tokens == 3


async def test_model_is_listed_as_one_that_fills_in_the_middle() -> None:
    async with running_server() as server, client_of(server) as client:
        models = await client.models.list_async()
        retrieved = await client.models.retrieve_async(model_id="fake")
    assert models.data is not None
    for model in (*models.data, retrieved):
        assert model.type == "base" and (model.id, model.capabilities.completion_fim) == ("fake", True)
    assert len(models.data) == 1


async def test_wrong_field_is_the_typed_error_that_names_it() -> None:
    async with running_server() as server, client_of(server) as client:
        with pytest.raises(HTTPValidationError) as caught:
            await client.fim.complete_async(model="codestral-latest", prompt="x", max_tokens=-1)
    assert caught.value.data.detail is not None
    (detail,) = caught.value.data.detail
    assert detail.loc == ["body", "max_tokens"] and "$.max_tokens" in detail.msg


@pytest.mark.parametrize("call", ["complete_async", "stream_async"])
async def test_lost_engine_is_an_error_with_our_sentence(call: str) -> None:
    async with running_server() as server, client_of(server) as client:
        with pytest.raises(SDKError) as caught:
            await getattr(client.fim, call)(model="codestral-latest", prompt="LOST")
    assert (caught.value.status_code, len(server.engine.contexts)) == (503, 1)
    assert "The engine could not answer" in caught.value.body


async def test_client_that_gives_up_ends_the_work() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server, client_of(server) as client:
        asking = asyncio.create_task(client.fim.complete_async(model="codestral-latest", prompt="SLOW"))
        await until(lambda: len(engine.contexts) == 1)
        asking.cancel()
        await until(lambda: engine.num_cancelled == 1)
        assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
