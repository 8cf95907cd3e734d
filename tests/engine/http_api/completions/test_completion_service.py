from __future__ import annotations

import asyncio

import pytest
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.http_api.completions.completion_service import CompletionService, refusal_of
from dgemma_engine.http_api.completions.question import Question
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.http_api.refusal import Refusal

from tests.engine.http_api.running_server import AnsweringEngine


class Typist:
    """A service whose clock only `ask` moves."""

    def __init__(self, *texts: str) -> None:
        self.engine = AnsweringEngine(*texts)
        self.now_s = 100.0
        self.ends: list[tuple[str, bool]] = []
        self.service = CompletionService(
            self.engine,
            HttpSettings(),
            clock=lambda: self.now_s,
            on_end=lambda end, infill: self.ends.append((end, infill is not None)),
        )

    async def ask(self, prefix: str, after_s: float, suffix: str = "\n") -> bool:
        """Sends a request and returns whether the engine received it as speculative."""
        self.now_s += after_s
        await self.service.answer(Question(prefix=prefix, suffix=suffix), "me")
        return self.engine.contexts[-1].speculative


async def test_identical_requests_count_one_answer_and_each_its_end() -> None:
    typist = Typist("alpha", "beta")
    question = Question(prefix="LATER", suffix="\n")
    await asyncio.gather(*(typist.service.answer(question, "me") for _ in range(2)))
    assert len(typist.engine.contexts) == 1
    assert sorted(typist.ends) == [("stable", False), ("stable", True)]


async def test_request_that_came_after_a_newer_one_is_counted_as_cancelled() -> None:
    typist = Typist("alpha")
    assert typist.service.overtaken().text == ""
    assert typist.ends == [("cancelled", True)]


async def test_engine_that_cannot_answer_is_counted_as_a_fault() -> None:
    typist = Typist("alpha")
    with pytest.raises(Refusal):
        await typist.service.answer(Question(prefix="LOST", suffix="\n"), "me")
    assert typist.ends == [("fault", False)]


async def test_request_that_follows_an_answer_too_soon_is_speculative() -> None:
    typist = Typist("alpha")
    assert [await typist.ask("x = ", 1.0), await typist.ask("x = alpha", 0.1)] == [False, True]
    assert len({context.document for context in typist.engine.contexts}) == 1


@pytest.mark.parametrize(
    ("prefix", "after_s"),
    [("x = alpha", 0.2), ("x = a", 0.01), ("x = ", 0.01), ("x = alpha\n", 0.01)],
)
async def test_request_of_a_typist_is_not_speculative(prefix: str, after_s: float) -> None:
    typist = Typist("alpha")
    assert [await typist.ask("x = ", 1.0), await typist.ask(prefix, after_s)] == [False, False]


async def test_repeated_request_after_an_empty_answer_is_not_speculative() -> None:
    typist = Typist("alpha")
    assert [await typist.ask("NOTHING", 1.0), await typist.ask("NOTHING", 0.01)] == [False, False]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (ConnectionState.DISCONNECTED, "Loading model"),
        (ConnectionState.STARTING, "Loading model"),
        (ConnectionState.LOADING, "Loading model"),
        (ConnectionState.ABSENT, "No engine runs; start one with: dgemma-engine start"),
        (ConnectionState.FAILED, "The engine could not answer; `dgemma-engine status` says why."),
    ],
)
def test_refusal_of_a_state_holds_nothing_of_its_message(state: ConnectionState, message: str) -> None:
    refusal = refusal_of(ConnectionStatus(state=state, message="/home/someone/engine.log"))
    assert (refusal.status, refusal.message, refusal.headers["Retry-After"]) == (503, message, "5")
