from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.http_api.completions.turn_queue import NOT_DUE, TurnQueue
from dgemma_engine.protocol.messages import Context, Finish, Infill, OnDraft

Outcome = Infill | ConnectionStatus


@dataclass
class Device:
    """Works on every request until it is told to end it."""

    begun: list[str] = field(default_factory=list[str])
    deadlines_ms: list[float] = field(default_factory=list[float])
    ends: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    async def ask(self, context: Context, _on_draft: OnDraft | None) -> Outcome:
        self.begun.append(context.prefix)
        self.deadlines_ms.append(context.deadline_ms)
        await self.ends.setdefault(context.prefix, asyncio.Event()).wait()
        return Infill(text=context.prefix, finish=Finish.STABLE, timings_ms={"queue": 1.0, "total": 5.0})

    async def end(self, prefix: str) -> None:
        self.ends[prefix].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def question(prefix: str, document: str = "", *, speculative: bool = False) -> Context:
    return Context(document=document or prefix, prefix=prefix, suffix="", speculative=speculative)


class Front:
    """A queue before a device, and the requests put to it."""

    def __init__(self, *, num_at_once: int = 1, max_wait_s: float = 60.0) -> None:
        self.device = Device()
        self.now_s = 0.0
        self.queue = TurnQueue(
            self.device.ask, num_at_once=num_at_once, max_wait_s=max_wait_s, clock=lambda: self.now_s
        )

    async def put(self, context: Context, caller: str = "me", *, due_s: float = NOT_DUE) -> asyncio.Task[Outcome]:
        work: Coroutine[Any, Any, Outcome] = self.queue.answer(context, caller, due_s)
        task = asyncio.create_task(work)
        await settle()
        return task


def finish(task: asyncio.Task[Outcome]) -> Finish | None:
    if not task.done():
        return None
    outcome = task.result()
    assert isinstance(outcome, Infill)
    return outcome.finish


async def test_limited_number_of_documents_runs_at_once_and_the_others_wait_in_order() -> None:
    front = Front(num_at_once=2)
    tasks = [await front.put(question(name)) for name in "abcd"]
    assert front.device.begun == ["a", "b"]
    await front.device.end("b")
    assert front.device.begun == ["a", "b", "c"]
    for name in "acd":
        await front.device.end(name)
    assert [finish(task) for task in tasks] == [Finish.STABLE] * 4


async def test_newest_request_of_a_document_takes_the_place_of_the_one_that_waits() -> None:
    front = Front()
    await front.put(question("a"))
    older = await front.put(question("b1", "b"))
    await front.put(question("c"))
    await front.put(question("b2", "b"))
    assert finish(older) is Finish.CANCELLED
    await front.device.end("a")
    assert front.device.begun == ["a", "b2"]


async def test_newer_request_of_a_document_at_the_engine_goes_there_at_once() -> None:
    front = Front()
    await front.put(question("a1", "a"))
    await front.put(question("b"))
    await front.put(question("a2", "a"))
    assert front.device.begun == ["a1", "a2"]
    await front.device.end("a1")
    assert front.device.begun == ["a1", "a2"]
    await front.device.end("a2")
    assert front.device.begun == ["a1", "a2", "b"]


async def test_callers_take_turns() -> None:
    front = Front()
    for name in ("a1", "a2", "a3"):
        await front.put(question(name), "a")
    await front.put(question("b1"), "b")
    for name in ("a1", "b1", "a2"):
        await front.device.end(name)
    assert front.device.begun == ["a1", "b1", "a2", "a3"]


async def test_client_that_leaves_gives_up_its_place_or_its_turn() -> None:
    front = Front()
    first, second = await front.put(question("a")), await front.put(question("b"))
    await front.put(question("c"))
    second.cancel()
    await settle()
    assert front.device.begun == ["a"]
    first.cancel()
    await settle()
    assert front.device.begun == ["a", "c"]


@pytest.mark.parametrize("num_ticks", range(8))
async def test_client_that_leaves_as_its_turn_comes_does_not_block_the_queue(num_ticks: int) -> None:
    front = Front()
    await front.put(question("a"))
    second = await front.put(question("b"))
    await front.put(question("c"))
    front.device.ends["a"].set()
    for _ in range(num_ticks):
        await asyncio.sleep(0)
    second.cancel()
    await settle()
    assert front.device.begun[-1] == "c"


async def test_request_that_has_waited_too_long_is_answered_with_nothing() -> None:
    front = Front(max_wait_s=0.01)
    await front.put(question("a"))
    outcome = await (await front.put(question("b")))
    assert isinstance(outcome, Infill) and (outcome.finish, outcome.text) == (Finish.DEADLINE, "")
    await front.device.end("a")
    assert front.device.begun == ["a"]


async def test_speculative_request_does_not_wait() -> None:
    front = Front()
    await front.put(question("s", speculative=True))
    await front.put(question("a"))
    refused = await front.put(question("t", speculative=True))
    assert front.device.begun == ["s", "a"]
    assert finish(refused) is Finish.CANCELLED


async def test_wait_is_subtracted_from_a_deadline_that_the_client_named_and_from_no_other() -> None:
    front = Front()
    await front.put(question("a"))
    named = await front.put(question("b"), due_s=1.0)
    unnamed = await front.put(question("c"))
    front.now_s = 0.25
    for name in "abc":
        await front.device.end(name)
    assert front.device.deadlines_ms == [1_000.0, 750.0, 1_000.0]
    assert [finish(task) for task in (named, unnamed)] == [Finish.STABLE] * 2


async def test_request_whose_deadline_has_passed_is_not_begun() -> None:
    front = Front()
    await front.put(question("a"))
    late = await front.put(question("b"), due_s=1.0)
    front.now_s = 1.0
    await front.device.end("a")
    assert front.device.begun == ["a"]
    assert finish(late) is Finish.DEADLINE


async def test_request_is_answered_when_it_is_due_although_it_might_wait_longer() -> None:
    front = Front(max_wait_s=60.0)
    await front.put(question("a"))
    outcome = await (await front.put(question("b"), due_s=0.01))
    assert isinstance(outcome, Infill) and outcome.finish is Finish.DEADLINE


async def test_wait_is_in_the_times_of_the_answer() -> None:
    front = Front()
    await front.put(question("a"))
    begun, older = await front.put(question("b")), await front.put(question("c1", "c"))
    front.now_s = 0.25
    await front.put(question("c2", "c"))
    await front.device.end("a")
    await front.device.end("b")
    outcomes = [begun.result(), older.result()]
    assert all(isinstance(one, Infill) for one in outcomes)
    assert [one.timings_ms for one in outcomes if isinstance(one, Infill)] == [
        {"queue": 251.0, "total": 255.0},
        {"queue": 250.0, "total": 250.0},
    ]
