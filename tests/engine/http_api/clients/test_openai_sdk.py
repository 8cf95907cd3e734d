"""OpenAI's own SDK against the HTTP API: the SDK, not this test, decides what is sent and what is accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import openai
import pytest
from dgemma_engine.http_api.access.api_keys import ApiKeys
from openai import AsyncOpenAI

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, RunningServer, running_server, until

KEY = "0123456789abcdef"


@asynccontextmanager
async def client_of(server: RunningServer, key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
        yield client


async def test_completion_with_a_suffix() -> None:
    async with running_server(AnsweringEngine("one", "two")) as server, client_of(server) as client:
        answer = await client.completions.create(
            model="any", prompt="x = ", suffix="\ny", max_tokens=64, n=2, stop=["\n\n"], seed=7, temperature=0.2
        )
    assert [(one.text, one.index, one.finish_reason) for one in answer.choices] == [
        ("one", 0, "stop"),
        ("two", 1, "stop"),
    ]
    assert answer.object == "text_completion" and answer.usage is not None and answer.usage.total_tokens == 4
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens, context.seed) == ("x = ", "\ny", 64, 7)


async def test_stream_ends_with_a_reason_and_the_usage() -> None:
    async with running_server() as server, client_of(server) as client:
        stream = await client.completions.create(
            model="any", prompt="x = ", suffix="\ny", stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(one.text for one in choices) == "alpha + beta"
    assert [one.finish_reason for one in choices] == [None, "stop"]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 3


async def test_models_are_listed() -> None:
    async with running_server() as server, client_of(server) as client:
        models = [model async for model in client.models.list()]
    assert [one.id for one in models] == ["fake"]


async def test_model_is_found_by_its_name_only() -> None:
    async with running_server() as server, client_of(server) as client:
        model = await client.models.retrieve("fake")
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("gpt-4/turbo é")
    assert (model.id, model.object) == ("fake", "model")
    assert (caught.value.code, caught.value.type) == ("model_not_found", "not_found_error")


async def test_wrong_field_is_a_bad_request_with_our_sentence() -> None:
    async with running_server() as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.completions.create(model="any", prompt="x", max_tokens=-1)
    assert caught.value.type == "invalid_request_error" and "$.max_tokens" in caught.value.message


@pytest.mark.parametrize("stream", [True, False])
async def test_lost_engine_is_an_error_that_is_not_retried(stream: bool) -> None:
    async with running_server() as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.completions.create(model="any", prompt="LOST", stream=stream)
    assert (caught.value.status_code, len(server.engine.contexts)) == (503, 1)


async def test_request_above_the_limit_is_a_rate_limit_error_that_is_not_retried() -> None:
    engine = AnsweringEngine()
    settings = replace(FREE_PORT, max_requests=1)
    async with running_server(engine, settings) as server, client_of(server) as client:
        _reader, writer = await server.open()
        body = b'{"prompt":"SLOW"}'
        writer.write(server.head("POST", "/v1/completions", body) + body)
        await until(lambda: len(engine.contexts) == 1)
        with pytest.raises(openai.RateLimitError):
            await client.completions.create(model="any", prompt="x")
        writer.close()
        await until(lambda: engine.num_cancelled == 1)


async def test_key_is_needed_and_accepted(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o600)
    settings = replace(FREE_PORT, keys=ApiKeys.read(file, {}))
    async with running_server(settings=settings) as server:
        async with client_of(server) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.completions.create(model="any", prompt="x")
        async with client_of(server, KEY) as client:
            assert (await client.completions.create(model="any", prompt="x")).choices[0].text


async def test_client_that_gives_up_ends_the_work() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server, client_of(server) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.5, max_retries=0).completions.create(model="any", prompt="SLOW")
        await until(lambda: engine.num_cancelled == 1)
