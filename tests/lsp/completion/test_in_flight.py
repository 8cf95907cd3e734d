"""In-flight engine requests: their callers, agreement with typed text, and cancellation."""

from __future__ import annotations

import asyncio

import pytest
from dgemma_engine.protocol.messages import Draft, DraftSpan, Finish, Infill, OnDraft

from dgemma_lsp.completion.cache import CursorFingerprint, EngineAnswer
from dgemma_lsp.completion.in_flight import InFlightRequest, InFlightRequests, Outcome
from dgemma_lsp.request import Request

PLACE = CursorFingerprint.of(Request(uri="u", version=1, text="x", offset=1))
ANSWER = Infill(text="value", finish=Finish.STABLE, score=0.5, steps=4)


def infill_of(outcome: Outcome) -> Infill | None:
    return outcome.infill if isinstance(outcome, EngineAnswer) else None


class Air:
    """In-flight requests over an engine whose drafts and answer the test sets."""

    def __init__(self, *, grace_s: float = 0.05) -> None:
        self.landed: list[tuple[InFlightRequest, Infill | None]] = []
        self.active: list[bool] = []
        self.cancelled = 0
        self.answer: asyncio.Future[Infill] = asyncio.Future()
        self.on_draft: OnDraft | None = None
        self.requests = InFlightRequests(
            on_done=lambda flight, outcome: self.landed.append((flight, infill_of(outcome))),
            on_activity=self.active.append,
            grace_s=grace_s,
        )

    async def ask(self, on_draft: OnDraft) -> Infill:
        self.on_draft = on_draft
        try:
            return await asyncio.shield(self.answer)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def launch(self, *, speculative: bool = False) -> InFlightRequest:
        flight = self.requests.launch(PLACE, self.ask, speculative=speculative)
        await asyncio.sleep(0)
        return flight

    def draft(self, text: str, step: int) -> None:
        assert self.on_draft is not None
        spans = (DraftSpan(text=text, confidence=0.5, settled=False),)
        self.on_draft(Draft(request="1", step=step, text=text, spans=spans))


async def test_answer_reaches_every_caller() -> None:
    air = Air()
    flight = await air.launch()
    waiting = [asyncio.create_task(flight.outcome("")) for _ in range(2)]
    await asyncio.sleep(0)
    air.answer.set_result(ANSWER)
    assert [infill_of(outcome) for outcome in await asyncio.gather(*waiting)] == [ANSWER, ANSWER]
    assert air.landed == [(flight, ANSWER)]
    assert air.active == [True, False]
    assert air.requests.get("u") is None


async def test_request_without_a_caller_goes_on_for_the_grace_period() -> None:
    air = Air()
    flight = await air.launch()
    waiting = asyncio.create_task(flight.outcome(""))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert air.cancelled == 0
    assert air.requests.get("u") is flight
    adopting = asyncio.create_task(flight.outcome(""))
    await asyncio.sleep(0.15)
    assert air.cancelled == 0, "a caller waits again"
    adopting.cancel()
    await asyncio.wait([adopting, flight.task], timeout=5)
    assert air.cancelled == 1
    assert air.landed == [(flight, None)]


async def test_drafts_decide_whether_typed_text_agrees() -> None:
    air = Air()
    flight = await air.launch()
    assert flight.agrees("")
    assert not flight.agrees("v"), "no draft has come yet"
    air.draft("val", 1)
    assert flight.agrees("va")
    assert not flight.agrees("val"), "no text of the draft is left to offer"
    adopting = asyncio.create_task(flight.outcome("va"))
    await asyncio.sleep(0)
    air.draft("van", 2)
    await asyncio.sleep(0)
    assert not adopting.done()
    air.draft("x", 3)
    assert await asyncio.wait_for(adopting, 5) is None
    assert not flight.done, "the caller decides whether to cancel the request"
    assert flight.num_steps == 3
    await air.requests.close()


async def test_newer_request_replaces_the_older_without_a_pause_in_activity() -> None:
    air = Air()
    older = await air.launch()
    waiting = asyncio.create_task(older.outcome(""))
    await asyncio.sleep(0)
    newer = await air.launch()
    assert await asyncio.wait_for(waiting, 5) is None
    assert air.cancelled == 1
    assert air.requests.get("u") is newer
    assert air.active == [True]
    await air.requests.close()


async def test_speculative_request_is_no_activity_and_needs_no_caller() -> None:
    air = Air(grace_s=0.0)
    flight = await air.launch(speculative=True)
    waiting = asyncio.create_task(flight.outcome(""))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0.05)
    assert not flight.done
    assert air.requests.get("u") is None
    air.answer.set_result(ANSWER)
    await flight.task
    assert air.landed == [(flight, ANSWER)]
    assert air.active == []


async def test_close_cancels_every_request_and_answers_every_caller() -> None:
    air = Air()
    flight, other = await air.launch(), await air.launch(speculative=True)
    waiting = asyncio.create_task(flight.outcome(""))
    await asyncio.sleep(0)
    await air.requests.close()
    assert await waiting is None
    assert flight.task.done()
    assert other.task.done()
    assert air.cancelled == 2


async def test_cancel_document_ends_the_requests_of_that_document_only() -> None:
    air = Air()
    await air.launch()
    air.requests.cancel_document("another")
    assert not air.landed
    air.requests.cancel_document("u")
    assert [outcome for _, outcome in air.landed] == [None]
    await air.requests.close()


async def test_error_is_an_outcome() -> None:
    air = Air()
    flight = await air.launch()
    air.answer.set_exception(RuntimeError("user text"))
    assert await asyncio.wait_for(flight.outcome(""), 5) is None
    assert air.landed == [(flight, None)]


@pytest.mark.parametrize(
    ("text", "cursor", "serves"),
    [
        ("x", 1, True),
        ("xva", 3, True),
        ("xvo", 3, False),
        ("xvalue", 6, False),  # Nothing would be left over.
        ("yva", 3, False),
        ("xva.", 3, False),  # What follows is another text.
        ("", 0, False),
    ],
)
async def test_edit_decides_whether_the_request_may_serve(text: str, cursor: int, serves: bool) -> None:
    air = Air()
    flight = await air.launch()
    air.draft("value", 1)
    assert flight.may_serve(text, cursor) is serves
    await air.requests.close()


async def test_closing_bracket_that_the_editor_inserts_is_ignored() -> None:
    air = Air()
    flight = await air.launch()
    air.draft("(value)", 1)
    assert flight.may_serve("x()", 3)
    assert not flight.may_serve("x[]", 3)
    await air.requests.close()
