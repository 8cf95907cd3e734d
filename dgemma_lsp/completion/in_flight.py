"""In-flight engine requests; a task may outlive the LSP request that started it.

A request that is superseded or cancelled is answered at once; the engine's work goes on for a grace period, in case
the next request can use it. `LatestOnly` cancels the handler of an older request of the same key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.protocol.messages import Draft, Infill, OnDraft

from dgemma_lsp.completion.cache import CursorFingerprint, EngineAnswer

_log = logging.getLogger(__name__)

Outcome = EngineAnswer | ConnectionStatus | None
"""The outcome of an in-flight request: the answer, why there is none, or None for a cancelled one."""

Ask = Callable[[OnDraft], Awaitable[Infill | ConnectionStatus]]
"""Asks the engine and passes its drafts to the argument. Being cancelled cancels the engine's work."""


class InFlightRequest:
    """One request to the engine. Made by `InFlightRequests.launch`.

    Args:
        fingerprint: of the cursor that it is about.
        ask: asks the engine.
        on_done: called with the outcome, once.
        grace_s: seconds that the work goes on without a request that waits for it.
        speculative: whether it is prepared before the editor asks; then it goes on without a waiter.

    Attributes:
        num_steps: denoising steps reported by its drafts.
        done: whether there is an outcome.
        task: runs it.
    """

    def __init__(
        self,
        fingerprint: CursorFingerprint,
        ask: Ask,
        *,
        on_done: Callable[[InFlightRequest, Outcome], None],
        grace_s: float,
        speculative: bool,
    ) -> None:
        self.fingerprint = fingerprint
        self.speculative = speculative
        self.num_steps = 0
        self._on_done = on_done
        self._grace_s = grace_s
        self._draft: str | None = None
        self._outcome: Outcome = None
        self._num_waiting = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self.done = False
        self.task = asyncio.create_task(self._run(ask))

    def agrees(self, typed: str) -> bool:
        """Whether the work may still answer the question after `typed` was typed."""
        return not typed or (self._draft is not None and self._draft.startswith(typed) and self._draft != typed)

    def may_serve(self, text: str, edited: int) -> bool:
        """Whether the work may answer a question about the document's new text, in which an edit ends at `edited`."""
        # After an opener editors put its closer too, and the cursor between the two.
        uri, elsewhere = self.fingerprint.uri, self.fingerprint.elsewhere
        return any(
            self.fingerprint.leads_to(CursorFingerprint.at(uri, text, cursor, elsewhere=elsewhere), text)
            and self.agrees(normalize_newlines(text[self.fingerprint.offset : cursor]))
            for cursor in range(edited, max(edited - 2, -1), -1)
        )

    async def outcome(self, typed: str) -> Outcome:
        """Waits for the outcome; None when it is cancelled, or as soon as its drafts do not begin with `typed`.

        Cancelling the caller leaves the work alone for the grace period.
        """
        self._num_waiting += 1
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        try:
            while not self.done and self.agrees(typed):
                await self._changed.wait()
        finally:
            self._num_waiting -= 1
            if not (self._num_waiting or self.done or self.speculative):
                self._expiry = asyncio.get_running_loop().call_later(self._grace_s, self.cancel)
        return self._outcome

    def cancel(self) -> None:
        """Cancels the engine's work; waiters get None at once."""
        if not self.done:
            self._finish(None)
            self.task.cancel()

    async def _run(self, ask: Ask) -> None:
        outcome: Outcome = None
        try:
            answer = await ask(self._drafted)
            if isinstance(answer, Infill):
                outcome = EngineAnswer(fingerprint=self.fingerprint, infill=answer, speculative=self.speculative)
            else:
                outcome = answer
        except Exception as error:
            # Its message may quote the user's text.
            _log.error("a question to the engine failed with %s", type(error).__name__)
        finally:
            if self._expiry is not None:
                self._expiry.cancel()
        if not self.done:
            self._finish(outcome)

    def _drafted(self, draft: Draft) -> None:
        self._draft, self.num_steps = draft.text, draft.step
        # Wakes those that wait now; later ones wait for the next change.
        self._changed.set()
        self._changed.clear()

    def _finish(self, outcome: Outcome) -> None:
        self.done, self._outcome = True, outcome
        self._changed.set()
        self._on_done(self, outcome)


class InFlightRequests:
    """The in-flight requests by document: at most one that is waited for and one that is prepared.

    Args:
        on_done: called with every request and its outcome, once.
        on_activity: called when the first request that is waited for begins and when the last one ends.
        grace_s: seconds that work goes on after its request: 0 ends both together, large computes unused answers.
    """

    def __init__(
        self,
        *,
        on_done: Callable[[InFlightRequest, Outcome], None],
        on_activity: Callable[[bool], None],
        grace_s: float = 0.2,
    ) -> None:
        self._on_done = on_done
        self._on_activity = on_activity
        self._grace_s = grace_s
        self._requests: dict[tuple[str, bool], InFlightRequest] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._active = False

    def launch(self, fingerprint: CursorFingerprint, ask: Ask, *, speculative: bool = False) -> InFlightRequest:
        """Asks the engine; the older request of the same document and kind is cancelled.

        Args:
            fingerprint: of the cursor that the request is about.
            ask: asks the engine.
            speculative: whether it is prepared before the editor asks.
        """
        key = fingerprint.uri, speculative
        older = self._requests.get(key)
        request = InFlightRequest(
            fingerprint, ask, on_done=self._finished, grace_s=self._grace_s, speculative=speculative
        )
        self._requests[key] = request
        self._tasks.add(request.task)
        request.task.add_done_callback(self._tasks.discard)
        if older is not None:
            older.cancel()
        if not speculative and not self._active:
            self._active = True
            self._on_activity(True)
        return request

    def get(self, uri: str, *, speculative: bool = False) -> InFlightRequest | None:
        """Returns the request of a document."""
        return self._requests.get((uri, speculative))

    def cancel(self, uri: str) -> None:
        """Cancels the request of a document that is waited for, if there is one."""
        if (request := self._requests.get((uri, False))) is not None:
            request.cancel()

    def cancel_document(self, uri: str) -> None:
        """Cancels both requests of a document."""
        for request in [request for (of, _), request in self._requests.items() if of == uri]:
            request.cancel()

    async def close(self) -> None:
        """Cancels all requests and waits until the cancellations are sent."""
        for request in list(self._requests.values()):
            request.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _finished(self, request: InFlightRequest, outcome: Outcome) -> None:
        key = request.fingerprint.uri, request.speculative
        if self._requests.get(key) is request:
            del self._requests[key]
        self._on_done(request, outcome)
        if self._active and all(speculative for _, speculative in self._requests):
            self._active = False
            self._on_activity(False)


class LatestOnly:
    """The running task of each key."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}

    @contextmanager
    def newest(self, key: str) -> Generator[None]:
        """Makes the current task the only one of `key` while the block lasts; cancels the one before it.

        Args:
            key: of which only one task may run.
        """
        task = asyncio.current_task()
        assert task is not None
        if (older := self._running.get(key)) is not None:
            older.cancel()
        self._running[key] = task
        try:
            yield
        finally:
            if self._running.get(key) is task:
                del self._running[key]

    def end(self, key: str) -> None:
        """Cancels the task of `key`, if there is one.

        Args:
            key: see `newest`.
        """
        if (task := self._running.pop(key, None)) is not None:
            task.cancel()
