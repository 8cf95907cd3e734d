"""Question -> Answer over the connection to the engine: admission, document keys, speculation, states as refusals.

The only service of the dialects. Works on any `CompletionEngine`: the connection of this process, or one of a cluster.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Protocol, TypeVar

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.http_api.completions.document_windows import DocumentWindows
from dgemma_engine.http_api.completions.question import Answer, Question, sent_prefix, to_answer
from dgemma_engine.http_api.completions.shared_work import SharedWork
from dgemma_engine.http_api.completions.turn_queue import NOT_DUE, TurnQueue
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Finish, Infill, OnDraft
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.protocol.trace_messages import Trace

# Too short for a user to read and accept a text: a request that continues it sooner is the client's speculation.
_FOLLOW_UP_S = 0.15
_FOLLOW_UP_CHARS = 200
_NUM_FOLLOWED = 64
_LOADING_S = 5
_BUSY_S = 1
_TOO_MANY = 429

_Answer = TypeVar("_Answer")

BUSY, FAULT = "busy", "fault"
"""Ends of a completion without an answer, beside those of `Finish`: refused with 429, not answered by the engine."""
OnEnd = Callable[[str, Infill | None], None]
"""Receives the end of each completion, and its answer unless another completion has the same one."""


def ignore_end(_end: str, _infill: Infill | None) -> None:
    """Counts nothing."""


class CompletionEngine(Protocol):
    """An engine as the HTTP server uses it; `EngineConnection` is one."""

    @property
    def status(self) -> ConnectionStatus:
        """What the connection is doing."""
        ...

    def wake(self) -> None:
        """Begins to connect, unless connected or connecting."""
        ...

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill | ConnectionStatus:
        """Answers one request, or returns the connection's state; cancelling the caller cancels the work."""
        ...

    async def trace(self, context: Context) -> Trace | ConnectionStatus:
        """Answers one request with the trace of its steps; likewise."""
        ...

    async def definitions(self, query: DefinitionsQuery) -> Definitions | None:
        """Returns how names are defined in a text; None without an engine that answers."""
        ...

    async def about(self) -> Status | None:
        """Returns what the engine is and does; None without an engine that answers."""
        ...


class CompletionService:
    """The service of the dialects.

    Args:
        engine: answers.
        settings: limits.
        clock: seconds that never go backwards.
        on_end: called once for each completion.
    """

    def __init__(
        self,
        engine: CompletionEngine,
        settings: HttpSettings,
        *,
        clock: Callable[[], float],
        on_end: OnEnd = ignore_end,
    ) -> None:
        self.settings = settings
        self._on_end = on_end
        self._engine = engine
        self._clock = clock
        self._windows = DocumentWindows()
        self._turns = TurnQueue(
            engine.infill, num_at_once=settings.num_at_once, max_wait_s=settings.max_wait_s, clock=clock
        )
        self._shared = SharedWork(self._turns.answer)
        self._num_requests = 0
        # Asked for once: the engine of one location keeps its model.
        self._model = ""
        # Of each document the end of the text as if the last answer had been accepted, and when that was sent.
        self._accepted: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def answer(self, question: Question, caller: str) -> Answer:
        """Answers a question. Cancelling the caller cancels the work, unless others wait for the same.

        Args:
            question: the question.
            caller: who asks.

        Raises:
            Refusal: too much is under way, or no engine answers.
        """
        document, start = self._windows.locate(caller, question.path, question.prefix, question.suffix)
        context = question.to_context(
            document=f"http/{document}",
            prefix=sent_prefix(question, start),
            deadline_ms=self.settings.deadline_ms,
            max_middle_tokens=self.settings.max_middle_tokens,
            speculative=question.is_warm_up or self._is_follow_up(document, question.prefix),
            insistent=self.settings.insistent,
        )
        due_s = NOT_DUE if question.deadline_ms is None else context.deadline_ms / 1_000
        infill, place = await self._counted(lambda: self._shared.answer(context, caller, due_s))
        answer = to_answer(question, infill, model=await self.model_name(), first=place)
        if answer.best.text and not context.speculative:
            self._remember(document, question.prefix + answer.best.text)
        return answer

    async def infill(self, context: Context, caller: str, on_draft: OnDraft | None = None) -> Infill:
        """Answers a request in the engine's own terms. Cancelling the caller cancels the work.

        Args:
            context: the request; its deadline counts from now.
            caller: who asks.
            on_draft: receives the drafts; None asks for none.

        Raises:
            Refusal: too much is under way, or no engine answers.
        """

        async def ask() -> tuple[Infill | ConnectionStatus, int]:
            return await self._turns.answer(context, caller, context.deadline_ms / 1_000, on_draft), 0

        return (await self._counted(ask))[0]

    def overtaken(self) -> Infill:
        """Returns the answer to a request that came after a newer one of its document."""
        infill = Infill(text="", finish=Finish.CANCELLED)
        self._on_end(infill.finish, infill)
        return infill

    async def trace(self, context: Context) -> Trace:
        """Answers a request with the trace of its steps; raises as `infill` does."""
        with self._admitted():
            return _or_refusal(await self._engine.trace(context))

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        """Returns how names are defined in a text; none where no engine answers."""
        with self._admitted():
            return await self._engine.definitions(query) or Definitions(texts={})

    @property
    def connection(self) -> ConnectionStatus:
        """What the connection to the engine is doing."""
        return self._engine.status

    def document_of(self, caller: str, path: str, prefix: str, suffix: str) -> str:
        """Returns the key of the document that a prefix and a suffix belong to."""
        return f"http/{self._windows.locate(caller, path, prefix, suffix)[0]}"

    async def about(self) -> Status:
        """Returns what the engine is and does; begins to connect where none is connected.

        Raises:
            Refusal: no engine is loaded.
        """
        self._engine.wake()
        status = await self._engine.about()
        if status is None or self._engine.status.state is not ConnectionState.READY:
            raise refusal_of(self._engine.status)
        return status

    async def model_name(self) -> str:
        """Returns the model's name, never the path of its folder.

        Raises:
            Refusal: no engine has been loaded yet.
        """
        if not self._model:
            self._model = PurePath((await self.about()).model).name
        return self._model

    async def _counted(self, ask: Callable[[], Awaitable[tuple[Infill | ConnectionStatus, int]]]) -> tuple[Infill, int]:
        """Returns an answer, and how many identical requests had it before; reports its end, whatever that is."""
        since_s, end, infill = self._clock(), FAULT, None
        try:
            with self._admitted():
                found, place = await ask()
            answer = _or_refusal(found)
            end, infill = answer.finish, None if place else answer
            return answer, place
        except asyncio.CancelledError:
            # The client has left, or has cancelled the request by its name.
            total_ms = (self._clock() - since_s) * 1_000
            end = Finish.CANCELLED
            infill = Infill(text="", finish=Finish.CANCELLED, timings_ms={"total": total_ms})
            raise
        except Refusal as refusal:
            end = BUSY if refusal.status == _TOO_MANY else FAULT
            raise
        finally:
            self._on_end(end, infill)

    @contextmanager
    def _admitted(self) -> Generator[None]:
        if self._num_requests >= self.settings.max_requests:
            raise Refusal(
                status=_TOO_MANY,
                message=f"{self.settings.max_requests} completions are under way already; ask again later.",
                retry_after_s=_BUSY_S,
            )
        self._num_requests += 1
        try:
            yield
        finally:
            self._num_requests -= 1

    def _is_follow_up(self, document: str, prefix: str) -> bool:
        """Whether a client prepares what follows an answer that its user has not had time to accept."""
        end, sent_s = self._accepted.get(document, ("", 0.0))
        return bool(end) and self._clock() - sent_s <= _FOLLOW_UP_S and prefix.endswith(end)

    def _remember(self, document: str, accepted: str) -> None:
        self._accepted.pop(document, None)
        self._accepted[document] = (accepted[-_FOLLOW_UP_CHARS:], self._clock())
        if len(self._accepted) > _NUM_FOLLOWED:
            self._accepted.popitem(last=False)


def refusal_of(status: ConnectionStatus) -> Refusal:
    """Returns the refusal for a connection without an answer, whose own message may name paths of the machine."""
    if status.state in (ConnectionState.DISCONNECTED, ConnectionState.STARTING, ConnectionState.LOADING):
        return Refusal(status=503, message="Loading model", retry_after_s=_LOADING_S)
    if status.state is ConnectionState.ABSENT:
        message = "No engine runs; start one with: dgemma-engine start"
        return Refusal(status=503, message=message, retry_after_s=_LOADING_S)
    message = "The engine could not answer; `dgemma-engine status` says why."
    return Refusal(status=503, message=message, retry_after_s=_LOADING_S)


def _or_refusal(answer: _Answer | ConnectionStatus) -> _Answer:
    if isinstance(answer, ConnectionStatus):
        raise refusal_of(answer)
    return answer
