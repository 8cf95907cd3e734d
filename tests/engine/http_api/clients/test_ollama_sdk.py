"""Ollama's own SDK against the HTTP API: the SDK, not this test, decides what is sent and what is accepted."""

from __future__ import annotations

import asyncio

import pytest
from ollama import AsyncClient, ResponseError

from tests.engine.http_api.running_server import AnsweringEngine, running_server, until


async def test_generate_with_a_suffix() -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        answer = await client.generate(
            model="qwen2.5-coder",
            prompt="x = ",
            suffix="\ny",
            options={"num_predict": 64, "seed": 7, "stop": ["\n\n"], "temperature": 0.2},
            keep_alive="30m",
        )
    assert (answer.response, answer.done, answer.done_reason) == ("alpha + beta", True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (2, 3)
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens, context.seed) == ("x = ", "\ny", 64, 7)


async def test_generate_reads_a_raw_template() -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        await client.generate(model="codellama:7b-code", prompt="<PRE> x =  <SUF>\ny <MID>", raw=True)
    assert (server.engine.contexts[0].prefix, server.engine.contexts[0].suffix) == ("x = ", "\ny")


async def test_stream_ends_with_a_reason() -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        parts = [part async for part in await client.generate(model="any", prompt="x = ", suffix="\ny", stream=True)]
    assert "".join(part.response for part in parts) == "alpha + beta"
    assert [part.done for part in parts] == [False, True]
    assert (parts[-1].done_reason, parts[-1].total_duration) == ("stop", 8_000_000)


async def test_model_is_shown_listed_and_running() -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        shown, listed, running = await client.show("any"), await client.list(), await client.ps()
    assert shown.capabilities == ["completion", "insert"] and ".Suffix" in (shown.template or "")
    assert shown.modified_at is not None
    assert [one.model for one in listed.models] == [one.model for one in running.models] == ["fake"]


async def test_empty_prompt_loads_the_model() -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        answer = await client.generate(model="any", keep_alive=0)
    assert (answer.response, answer.done_reason, server.engine.contexts) == ("", "unload", [])


async def test_wrong_field_is_an_error_with_our_sentence() -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.generate(model="any", prompt="x", raw=True, system="y")
    assert (caught.value.status_code, caught.value.error) == (400, "raw mode takes no template, system or context.")


@pytest.mark.parametrize("stream", [True, False])
async def test_lost_engine_is_an_error_with_our_sentence(stream: bool) -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        with pytest.raises(ResponseError) as caught:
            answer = await client.generate(model="any", prompt="LOST", stream=stream)
            async for _ in answer:
                pass
    assert caught.value.status_code == 503 and "The engine could not answer" in caught.value.error


async def test_unknown_path_is_an_error_with_our_sentence() -> None:
    async with running_server() as server, AsyncClient(server.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.pull("any")
    assert (caught.value.status_code, caught.value.error) == (404, "There is no such path.")


async def test_client_that_gives_up_ends_the_work() -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server, AsyncClient(server.url) as client:
        asking = asyncio.create_task(client.generate(model="any", prompt="SLOW", suffix=""))
        await until(lambda: len(engine.contexts) == 1)
        asking.cancel()
        await until(lambda: engine.num_cancelled == 1)
        assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
