"""Our language server's questions from another machine: the messages of the socket, over HTTP.

A question is sent as changes of an earlier one (`protocol/remote_messages.py`), and 409 asks for the whole of it. A
request has a name, by which it is cancelled on another connection, so that its own stays open. Every answer has its
duration on this machine, so that the client can compute that of the network.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.engine_client.connection_status import ConnectionState
from dgemma_engine.http_api.completions.cancellable_requests import CancellableRequests
from dgemma_engine.http_api.completions.kept_questions import KeptQuestions
from dgemma_engine.http_api.draft_stream import draft_events
from dgemma_engine.http_api.operation import Call, Operation
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import error_object, json_response, stream_response
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Context, Draft, Finish, Infill, OnDraft
from dgemma_engine.protocol.remote_messages import (
    ABOUT_PATH,
    CANCEL_PATH,
    DEFINITIONS_PATH,
    INFILL_PATH,
    TRACE_PATH,
)
from dgemma_engine.protocol.status_messages import EngineState, Status
from dgemma_engine.protocol.trace_messages import Trace

_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Count = Annotated[int, Meta(ge=0, le=2**31)]
# Time that an engine at work may take beyond its deadline: a client must not mistake a busy one for a lost one.
_GRACE_S = 0.5
_NUM_DOCUMENTS = 1_024
_CANCELLED = Infill(text="", finish=Finish.CANCELLED)
_STATES = {
    ConnectionState.READY: EngineState.READY,
    ConnectionState.FAILED: EngineState.FAILED,
    ConnectionState.ABSENT: EngineState.FAILED,
}


class QuestionBody(Struct, kw_only=True):
    """A question as changes of an earlier one; see `remote_messages.envelope`."""

    protocol: int
    session: _Name
    request: _Name
    pieces: tuple[str | tuple[_Count, _Count], ...]
    sum: Annotated[str, Meta(max_length=64)]
    number: Annotated[int, Meta(ge=0, le=2**53)] = 0
    base: Annotated[str, Meta(max_length=64)] = ""
    drafts: bool = False


class DefinitionsBody(Struct, kw_only=True):
    """A query to the engine's parser."""

    protocol: int
    text: str
    names: tuple[str, ...]
    path: str = ""
    language: str = ""


class CancelBody(Struct, kw_only=True):
    """The request to cancel."""

    session: _Name
    request: _Name


class EngineProgress(Struct, kw_only=True):
    """The engine's progress, and its status once it is loaded."""

    protocol: int
    state: EngineState
    percent: int
    status: Status | None


class InfillAnswer(Struct, kw_only=True):
    """An answer, and the milliseconds from the question's arrival to it."""

    answer: Infill
    elapsed_ms: float


class TraceAnswer(Struct, kw_only=True):
    """A trace, and the milliseconds from the question's arrival to it."""

    trace: Trace
    elapsed_ms: float


class LanguageServerDialect:
    """Our language server's API.

    Args:
        clock: seconds that never go backwards.
    """

    name = "language server"

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = CancellableRequests()
        self._kept: KeptQuestions | None = None
        self._newest: BoundedStore[str, int] = BoundedStore(_NUM_DOCUMENTS)

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        post = {
            INFILL_PATH: (self._infill, QuestionBody, InfillAnswer, "the text at a cursor"),
            TRACE_PATH: (self._trace, QuestionBody, TraceAnswer, "the text at a cursor with the trace of its steps"),
            DEFINITIONS_PATH: (self._definitions, DefinitionsBody, Definitions, "how names are defined in a text"),
            CANCEL_PATH: (self._cancel, CancelBody, dict[str, str], "cancels a request of the same session"),
        }
        return (
            Operation(
                method="GET", paths=(ABOUT_PATH,), run=self._about, summary="state of the engine", answer=EngineProgress
            ),
            *(
                Operation(method="POST", paths=(path,), run=run, summary=summary, body=body, answer=answer)
                for path, (run, body, answer, summary) in post.items()
            ),
        )

    def error(self, refusal: Refusal) -> Response:
        """Returns `{"error": {...}, "protocol"}`, so that a client of another version learns which."""
        return error_object(refusal, code=refusal.status, further={"protocol": PROTOCOL})

    async def _about(self, call: Call) -> Response:
        try:
            status = await call.service.about()
        except Refusal:
            status = None
        connection = call.service.connection
        return json_response(
            EngineProgress(
                protocol=PROTOCOL,
                state=_STATES.get(connection.state, EngineState.LOADING),
                percent=connection.percent,
                # Names no path of this machine.
                status=status
                and replace(status, model=PurePath(status.model).name, model_path="", message="", adapters={}),
            )
        )

    async def _infill(self, call: Call) -> Response:
        since_s = self._clock()
        body, owner, context = self._read(call)
        if self._is_overtaken(context.document, body.number):
            return json_response(InfillAnswer(answer=call.service.overtaken(), elapsed_ms=0.0))

        def answer(on_draft: OnDraft | None) -> Awaitable[Infill]:
            def begin() -> Awaitable[Infill]:
                return _in_time(call.service.infill(context, call.caller, on_draft), context)

            return self._unless_cancelled(owner, body.request, begin)

        def to_answer(infill: Infill) -> InfillAnswer:
            return InfillAnswer(answer=infill, elapsed_ms=self._since_ms(since_s))

        def to_draft(draft: Draft) -> object:
            return {"draft": draft, "elapsed_ms": self._since_ms(since_s)}

        if body.drafts:
            return await stream_response(draft_events(answer, to_draft=to_draft, to_answer=to_answer))
        return json_response(to_answer(await answer(None)))

    async def _trace(self, call: Call) -> Response:
        since_s = self._clock()
        body, owner, context = self._read(call)
        trace = await self._requests.run(owner, body.request, lambda: call.service.trace(context))
        if trace is None:
            raise Refusal(status=409, message="The request was cancelled.")
        return json_response(TraceAnswer(trace=trace, elapsed_ms=self._since_ms(since_s)))

    async def _definitions(self, call: Call) -> Response:
        body = call.read(DefinitionsBody)
        _require_same(body.protocol)
        query = DefinitionsQuery(text=body.text, names=body.names, path=body.path, language=body.language)
        return json_response(await call.service.definitions(query))

    async def _cancel(self, call: Call) -> Response:
        body = call.read(CancelBody)
        self._requests.cancel(f"{call.caller}/{body.session}", body.request)
        return json_response({})

    def _read(self, call: Call) -> tuple[QuestionBody, str, Context]:
        """Returns the body, its owner, and its question with a document key of its own session."""
        body = call.read(QuestionBody)
        _require_same(body.protocol)
        owner = f"{call.caller}/{body.session}"
        if self._kept is None:
            self._kept = KeptQuestions(max_chars=call.service.settings.max_body_bytes)
        text = self._kept.restore(owner, body.base, body.pieces, body.sum)
        try:
            context = Context.from_wire(json.loads(text))
        except (ValueError, RecursionError) as error:
            # Our own checks name fields and numbers, and quote no text; those of JSON quote none either.
            raise Refusal(status=400, message=str(error)[:200].replace("self.", "")) from None
        if context.folder:
            # Adapters contain their owner's code, and folder names must not be probed from outside.
            raise Refusal(status=400, message="A question over HTTP names no folder of the engine's machine.")
        most = call.service.settings.max_items
        if max(len(context.snippets), len(context.edits)) > most:
            raise Refusal(status=400, message=f"A list of the question has more than {most} entries.")
        return body, owner, replace(context, document=f"{owner}/{context.document}", drafts="")

    async def _unless_cancelled(self, owner: str, request: str, begin: Callable[[], Awaitable[Infill]]) -> Infill:
        infill = await self._requests.run(owner, request, begin)
        return _CANCELLED if infill is None else infill

    def _is_overtaken(self, document: str, number: int) -> bool:
        """Whether a later question of the document arrived first, which an older one must not supersede."""
        newest = self._newest.get(document) or 0
        self._newest.put(document, max(newest, number))
        return number < newest

    def _since_ms(self, since_s: float) -> float:
        return (self._clock() - since_s) * 1_000


async def _in_time(work: Awaitable[Infill], context: Context) -> Infill:
    try:
        async with asyncio.timeout(context.deadline_ms / 1_000 + _GRACE_S if context.deadline_ms else None):
            return await work
    except TimeoutError:
        return Infill(text="", finish=Finish.DEADLINE)


def _require_same(protocol: int) -> None:
    if protocol != PROTOCOL:
        raise Refusal(status=400, message=f"The protocol of this engine is {PROTOCOL}, not {protocol}.")
