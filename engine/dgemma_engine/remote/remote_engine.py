"""An engine on another machine as an `InfillSource`: one round trip a question, one retry, never half an answer.

A question runs in a task of its own and is cancelled by name on another connection, so that the connection stays open
for the next key; one that outlives its deadline is answered with nothing then, and shows later whether the machine is
lost or slow. Drafts and answer come from whole events only; what broke off is asked once more, and drafts that were
passed on already are not passed on again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from dgemma_engine.errors import EngineFault, EngineUnavailable, NotNow, OutOfReach
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.protocol.messages import Context, Infill, OnDraft
from dgemma_engine.protocol.remote_messages import (
    BASE_UNKNOWN,
    CANCEL_PATH,
    DEFINITIONS_PATH,
    INFILL_PATH,
    TRACE_PATH,
    QuestionText,
    envelope,
)
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.protocol.trace_messages import Trace
from dgemma_engine.remote import fault_sentences
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.buffering_detector import BufferingDetector
from dgemma_engine.remote.draft_reader import DraftReader
from dgemma_engine.remote.http_channel import Broken, HttpChannel, Reply
from dgemma_engine.remote.known_questions import KnownQuestions
from dgemma_engine.remote.loading_watch import LoadingWatch
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.reply_reading import Loading, leave_alone, read_elapsed_ms, read_message, read_object

# An engine that lives answers within half a second after a question's deadline.
_GRACE_S = 1.5
# The next key supersedes the question before it at the engine, and must not meet a cancellation on its way. Small
# costs that key time, large lets the engine work in vain.
_CANCEL_PAUSE_S, _CANCEL_S = 0.05, 2.0
_DEFINITIONS_S = 2.0
_TRACE_S = 120.0

_Result = TypeVar("_Result")


class RemoteEngine:
    """A connection to an engine elsewhere; belongs to the event loop that it was made on.

    Args:
        channel: the connections; closed with this object.
        watch: reports the engine's progress.
        network: the time that the network takes.
        back_off: how long a busy machine is left alone.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        channel: HttpChannel,
        watch: LoadingWatch,
        network: NetworkTime,
        back_off: BackOff,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._watch = watch
        self._network = network
        self._clock = clock
        self._session = channel.session
        self._numbers = itertools.count(1)
        self._known = KnownQuestions()
        self._back_off = back_off
        self._buffering = BufferingDetector()
        self._closed = False
        self._cancelled: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def place(self) -> str:
        """Host and port, for the user."""
        return self._channel.place

    async def infill(self, context: Context, on_draft: OnDraft | None = None) -> Infill:
        """Answers one question and passes its drafts on; cancelling the caller cancels the work.

        Raises:
            OutOfReach: the engine cannot be asked now.
            NotNow: the engine answers nothing to this question: busy, late, loading, or the connection broke twice.
            EngineFault: the engine failed on this question.
        """
        drafts = DraftReader(on_draft)

        async def ask(request: str) -> Infill:
            body, network_ms = await self._answered(INFILL_PATH, request, context, drafts)
            infill = read_message(body.get("answer"), Infill.from_wire)
            return replace(infill, timings_ms=infill.timings_ms | {"network": network_ms})

        try:
            infill = await self._cancellable(ask, due_ms=context.deadline_ms)
        finally:
            drafts.end()
        if drafts.lead is not None:
            self._buffering.learn(drafts.lead, infill.timings_ms["network"])
            self._watch.tell(fault_sentences.held_back(self.place) if self._buffering.is_held_back else "")
        return infill

    async def trace(self, context: Context) -> Trace:
        """Answers one question with the trace of its steps; likewise."""

        async def ask(request: str) -> Trace:
            body, _ = await self._answered(TRACE_PATH, request, context, DraftReader(None))
            return read_message(body.get("trace"), Trace.from_wire)

        return await self._cancellable(ask, due_ms=_TRACE_S * 1_000)

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        """Returns how names are defined in a text.

        Raises:
            EngineUnavailable: the engine cannot be asked now, or not in time.
            EngineFault: the engine failed on this question.
        """
        leave_alone(self.place, self._back_off)
        body = json.dumps(query.to_wire() | {"protocol": PROTOCOL}).encode("utf-8")
        try:
            async with asyncio.timeout(_DEFINITIONS_S):
                reply = await self._channel.post(DEFINITIONS_PATH, body)
            return read_message(dict(read_object(reply, self.place, self._back_off)), Definitions.from_wire)
        except (Broken, TimeoutError):
            raise EngineUnavailable(self._channel.no_answer()) from None

    async def status(self) -> Status:
        """Returns what the engine is and does; raises as `definitions` does."""
        return await self._watch.status()

    async def wait_ready(self, timeout_s: float) -> Status:
        """Waits until the model is loaded, at most `timeout_s`; raises as `definitions` does."""
        return await self._watch.wait_ready(timeout_s)

    async def close(self) -> None:
        """Ends the connections; the engine stays. Questions under way fail with `EngineUnavailable`."""
        self._closed = True
        await self._watch.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._channel.close()

    async def _answered(
        self, path: str, request: str, context: Context, drafts: DraftReader
    ) -> tuple[dict[str, Any], float]:
        """Returns the body that answers a question, and the milliseconds that the network took."""
        number = next(self._numbers)
        due_s = self._clock() + (_TRACE_S if path == TRACE_PATH else context.deadline_ms / 1_000)
        num_tries, is_whole = 0, False
        while True:
            leave_alone(self.place, self._back_off)
            asked_s = self._clock()
            left_ms = max(due_s - asked_s, 0.0) * 1_000
            deadline_ms = self._network.remaining_ms(min(left_ms, context.deadline_ms))
            # A folder of this machine means nothing there.
            question = QuestionText.of(replace(context, deadline_ms=deadline_ms, folder=""))
            base = None if is_whole else self._known.base_of(context.document)
            body = envelope(
                question,
                base,
                protocol=PROTOCOL,
                session=self._session,
                request=request,
                number=number,
                drafts=drafts.is_wanted,
            )
            try:
                # After a broken connection, no answer means a fault of the network: a busy engine is not waited for.
                limit_s = left_ms / 1_000 + (0.0 if num_tries else _GRACE_S)
                reply = await self._reply(path, body, limit_s, drafts)
                if request in self._cancelled:
                    raise NotNow(f"{self.place}: the question was taken back")
                if reply.status == BASE_UNKNOWN and base is not None:
                    # It has lost the earlier question, not this one: no retry.
                    self._known.forget()
                    is_whole = True
                    continue
                answer = dict(read_object(reply, self.place, self._back_off))
            except Broken:
                num_tries += 1
                if request in self._cancelled:
                    raise NotNow(f"{self.place}: the question was taken back") from None
                if num_tries > 1:
                    raise NotNow(fault_sentences.broken_twice(self.place)) from None
                if self._network.is_too_late((due_s - self._clock()) * 1_000):
                    raise OutOfReach(fault_sentences.broken(self.place)) from None
                continue
            except Loading:
                self._watch.begin()
                raise
            self._back_off.answered()
            self._known.answered(context.document, question)
            elapsed_ms = read_elapsed_ms(answer)
            if elapsed_ms >= deadline_ms:
                self._network.overran(elapsed_ms - deadline_ms)
            return answer, self._network.learn((self._clock() - asked_s) * 1_000, elapsed_ms)

    async def _reply(self, path: str, body: bytes, limit_s: float, drafts: DraftReader) -> Reply:
        try:
            async with asyncio.timeout(limit_s):
                if not drafts.is_wanted:
                    return await self._channel.post(path, body)
                return await drafts.last_of(self._channel.events(path, body))
        except TimeoutError:
            raise OutOfReach(self._channel.no_answer()) from None

    async def _cancellable(self, ask: Callable[[str], Coroutine[Any, Any, _Result]], *, due_ms: float) -> _Result:
        """Returns the result of a request; where the caller is cancelled, tells the engine, and does not wait."""
        if self._closed:
            raise EngineUnavailable(f"the connection to {self.place} is closed")
        request = uuid.uuid4().hex
        work = self._keep(ask(request))
        try:
            if not (await asyncio.wait([work], timeout=due_ms / 1_000 or None))[0]:
                work.add_done_callback(self._ended_late)
                raise NotNow(fault_sentences.late(self.place))
            return work.result()
        except asyncio.CancelledError:
            if work.cancelled() and not _is_cancelled():
                raise EngineUnavailable(f"the connection to {self.place} is closed") from None
            if not self._closed:
                self._keep(self._cancel(request, work))
            raise
        except Broken:
            raise NotNow(fault_sentences.broken_twice(self.place)) from None

    def _ended_late(self, work: asyncio.Task[Any]) -> None:
        error = None if work.cancelled() else work.exception()
        if isinstance(error, OutOfReach) and not self._closed:
            self._watch.lost(error)

    async def _cancel(self, request: str, work: asyncio.Task[Any]) -> None:
        body = json.dumps({"session": self._session, "request": request}).encode()
        self._cancelled.add(request)
        work.add_done_callback(lambda _done: self._cancelled.discard(request))
        await asyncio.wait([work], timeout=_CANCEL_PAUSE_S)
        if work.done():
            return
        with suppress(Broken, EngineFault, EngineUnavailable, TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                await self._channel.post(CANCEL_PATH, body)
                await asyncio.wait([work])
        # Ends the connection, which is a cancellation too.
        work.cancel()

    def _keep(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Retrieves the exception of a task that no caller awaits any more, which asyncio would log.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


def _is_cancelled() -> bool:
    """Whether it is the current task that is cancelled, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
