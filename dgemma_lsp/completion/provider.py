"""Request -> completions, from the first that has an answer: cache, in-flight request, engine.

Joins cache, in-flight requests and debounce. Independent of protocol types and settings; the clock is an argument.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.protocol.messages import Infill, OnDraft

from dgemma_lsp.completion.admission import DebounceConfig, LatencyEstimate, TypingCadence, TypingState
from dgemma_lsp.completion.cache import (
    AnswerCache,
    AnswerMatch,
    CursorFingerprint,
    EngineAnswer,
    accepted,
    resume,
)
from dgemma_lsp.completion.in_flight import InFlightRequest, InFlightRequests, Outcome
from dgemma_lsp.engine_client.infill_client import ContextLimits, InfillClient
from dgemma_lsp.metrics.recorder import StatsRecorder
from dgemma_lsp.metrics.stats import Source
from dgemma_lsp.request import Channel, Completion, Request, Trigger, as_if_accepted

_log = logging.getLogger(__name__)

# No item is accepted sooner after it is shown; while the user types on, one is shown for less time than this.
_SPECULATE_AFTER_S = 0.15
# How long a request waits for an engine that is starting: ghost text may come late, a menu holds up all its entries.
_HOLD_MS = {Channel.GHOST_TEXT: 10_000.0, Channel.MENU: 300.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The completions that an answer yields for a request, best first; may be none."""

    completions: tuple[Completion, ...]
    answer: EngineAnswer


class CompletionProvider:
    """Answers the completion requests of one editor.

    Args:
        infills: asks the engine.
        clock: seconds that never go backwards.
        stats: counts everything.
        is_current: whether a question's document is still as it was.
        on_activity: called with whether the engine works on a question, when that changes.
        on_infill: called with every answer of the engine to a request of the editor.
        debounce: how long to wait for the next key.
    """

    def __init__(
        self,
        infills: InfillClient,
        *,
        clock: Callable[[], float],
        stats: StatsRecorder,
        is_current: Callable[[Request], bool],
        on_activity: Callable[[bool], None],
        on_infill: Callable[[Infill], None],
        debounce: DebounceConfig | None = None,
    ) -> None:
        self._infills = infills
        self._clock = clock
        self._stats = stats
        self._is_current = is_current
        self._on_infill = on_infill
        config = debounce or DebounceConfig()
        self._latency = LatencyEstimate(config)
        self._cache = AnswerCache()
        self._in_flight = InFlightRequests(on_done=self._finished, on_activity=on_activity)
        self._documents = defaultdict[str, TypingState](lambda: TypingState(cadence=TypingCadence(config)))

    def changed(self, uri: str, text: str, edited: int, *, deleted: bool) -> None:
        """Records an edit; cancels work that cannot answer a question about the new text.

        Args:
            uri: the document.
            text: its new text.
            edited: where the edit ends.
            deleted: whether it only took text away.
        """
        typing = self._documents[uri]
        typing.cadence.key(self._clock())
        typing.is_edited, typing.deleted = True, deleted
        request = self._in_flight.get(uri)
        if request is not None and not request.may_serve(text, edited):
            request.cancel()

    def closed(self, uri: str) -> None:
        """Drops what is kept of a document; a pending request gets no answer."""
        if (typing := self._documents.pop(uri, None)) is not None:
            typing.put_off()
        self._in_flight.cancel_document(uri)
        self._cache.forget(uri)

    def forget(self) -> None:
        """Drops all answers, which were made under other settings."""
        self._cache.clear()
        for uri, typing in self._documents.items():
            typing.put_off()
            self._in_flight.cancel_document(uri)

    async def close(self) -> None:
        """Ends what is in flight."""
        for typing in self._documents.values():
            typing.put_off()
        await self._in_flight.close()

    async def answer(
        self, request: Request, limits: ContextLimits, *, speculate: bool, since_s: float
    ) -> tuple[Completion, ...]:
        """Returns what to show, best first; empty for nothing.

        When the caller is cancelled, the engine's work goes on for the grace period of `InFlightRequests`.

        Args:
            request: the question.
            limits: how much text to send, how much to ask for.
            speculate: whether to ask ahead for what follows the acceptance of the best completion.
            since_s: when the question came.
        """
        typing = self._documents[request.uri]
        if not typing.is_edited:
            typing.cadence.key(self._clock())
        typing.is_edited = False
        typing.put_off()
        asked = as_if_accepted(request)
        here = CursorFingerprint.of(asked)
        # The earlier answer whose item is shown comes first.
        matches = sorted(self._cache.matches(asked, here), key=lambda match: match.answer is not typing.shown)
        given = next(filter(None, (self._given(request, match, typing) for match in matches)), None)
        if given is not None:
            source = Source.CACHE
            # Work in flight is about an older text.
            self._in_flight.cancel(request.uri)
        elif given := await self._from_in_flight(request, asked, here, typing):
            source = Source.IN_FLIGHT
        elif request.trigger is Trigger.AUTOMATIC and typing.deleted:
            source = Source.NOT_ASKED
        else:
            source, answer = await self._from_engine(request, asked, here, limits, typing)
            if answer is not None:
                given = self._given(request, AnswerMatch(answer=answer), typing)
                typing.said_nothing = given is None or not given.completions
        # Nothing is shown where the text has changed since.
        given = given if self._is_current(request) else None
        completions = given.completions if given is not None else ()
        if given is not None:
            answer = given.answer
            if source is Source.CACHE and completions and answer is typing.shown:
                source = Source.TYPED_THROUGH
            if self._cache.use(answer):
                self._stats.steps_used(answer.infill.steps, speculative=answer.speculative, shown=bool(completions))
        typing.shown = given.answer if given is not None and completions else None
        total_ms, timings_ms = (self._clock() - since_s) * 1_000, given.answer.infill.timings_ms if given else {}
        self._stats.answered(source, shown=bool(completions), total_ms=total_ms, timings_ms=timings_ms)
        # An item that replaces text right of the cursor changes the suffix, which stands first in the prompt: asking
        # ahead would cost the document its prompt cache.
        if speculate and completions and completions[0].end == completions[0].cursor:
            work = partial(self._speculate, request, completions[0], limits, typing)
            typing.speculation = asyncio.get_running_loop().call_later(_SPECULATE_AFTER_S, work)
        return completions

    def _given(self, request: Request, match: AnswerMatch, typing: TypingState) -> _Given | None:
        """Returns what an answer yields for a request; None where it must not serve.

        An unlikely answer serves questions by hand, and automatic ones only while the user types the item it shows.
        """
        is_automatic, is_here = request.trigger is Trigger.AUTOMATIC, not match.num_typed
        if is_automatic and match.answer.infill.unlikely and (is_here or match.answer is not typing.shown):
            return None
        completions = resume(request, match)
        # A request by hand is not answered with a cached empty answer.
        if not completions and not (is_here and is_automatic):
            return None
        return _Given(completions=completions, answer=match.answer)

    async def _from_in_flight(
        self, request: Request, asked: Request, here: CursorFingerprint, typing: TypingState
    ) -> _Given | None:
        """Waits for an in-flight request as long as it agrees with what was typed since; cancels it if it does not."""
        for speculative in (False, True):
            if (pending := self._in_flight.get(request.uri, speculative=speculative)) is None:
                continue
            if pending.fingerprint.leads_to(here, asked.text, skipped=asked.skipped):
                num_typed = here.offset - pending.fingerprint.offset
                typed = normalize_newlines(asked.text[asked.offset - num_typed : asked.offset])
                if pending.agrees(typed):
                    self._stats.count(adopted=1)
                    outcome = await pending.outcome(typed)
                    if isinstance(outcome, EngineAnswer):
                        has_others = outcome.fingerprint.closers != here.closers
                        match = AnswerMatch(
                            answer=outcome, typed=typed, num_typed=num_typed, has_other_closers=has_others
                        )
                        if given := self._given(request, match, typing):
                            return given
            pending.cancel()
        return None

    async def _from_engine(
        self, request: Request, asked: Request, here: CursorFingerprint, limits: ContextLimits, typing: TypingState
    ) -> tuple[Source, EngineAnswer | None]:
        wait_s = 0.0
        if asked.trigger is Trigger.AUTOMATIC:
            wait_s = typing.cadence.wait_s(self._clock(), self._latency.mean_s, said_nothing=typing.said_nothing)
            # Only the next key is held back: after an empty answer the engine would not be asked before a pause.
            typing.said_nothing = False
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if not self._is_current(request):
                return Source.NOT_ASKED, None
        ask = partial(self._ask, asked, limits, wait_s)
        outcome = await self._in_flight.launch(here, ask, speculative=asked.speculative).outcome("")
        if outcome is None and not self._is_current(request):
            # Superseded, by an edit in place of a newer request.
            raise asyncio.CancelledError
        if isinstance(outcome, ConnectionStatus):
            return Source.NOT_ASKED, None
        return Source.ENGINE, outcome

    async def _ask(
        self, asked: Request, limits: ContextLimits, wait_s: float, on_draft: OnDraft
    ) -> Infill | ConnectionStatus:
        asked_s = self._clock()
        is_elsewhere, left_ms = self._infills.is_elsewhere, asked.deadline_ms - wait_s * 1_000
        hold_ms = _HOLD_MS[asked.channel]
        await self._infills.connection.settled(min(hold_ms, left_ms) if is_elsewhere else hold_ms)
        started_s = self._clock()
        if is_elsewhere:
            left_ms -= (started_s - asked_s) * 1_000
            if left_ms <= 0:
                return self._infills.connection.status
            asked = replace(asked, deadline_ms=left_ms)
        try:
            answer = await self._infills.ask(asked, limits, None if asked.speculative else on_draft)
        except asyncio.CancelledError:
            if not asked.speculative:
                self._latency.exceeds(self._clock() - started_s)
            raise
        if not isinstance(answer, Infill):
            return answer
        _log.debug("%s after %d steps, %s", answer.finish, answer.steps, answer.timings_ms)
        if not asked.speculative:
            self._latency.learn(self._clock() - started_s)
        stages_ms = {"start": (started_s - asked_s) * 1_000, "wait": wait_s * 1_000}
        return replace(answer, timings_ms=answer.timings_ms | stages_ms)

    def _finished(self, request: InFlightRequest, outcome: Outcome) -> None:
        if not isinstance(outcome, EngineAnswer):
            self._stats.steps_spent(request.num_steps, speculative=request.speculative)
            return
        self._stats.steps_spent(outcome.infill.steps, speculative=request.speculative)
        self._cache.put(outcome)
        if not request.speculative:
            self._on_infill(outcome.infill)

    def _speculate(self, request: Request, completion: Completion, limits: ContextLimits, typing: TypingState) -> None:
        """Asks the engine for what would follow once the shown completion is accepted."""
        typing.speculation = None
        is_free = self._infills.connection.is_ready and self._in_flight.get(request.uri) is None
        if not (is_free and self._is_current(request)):
            return
        following = accepted(request, completion)
        there = CursorFingerprint.of(following)
        pending = self._in_flight.get(request.uri, speculative=True)
        if not self._cache.has(there) and (pending is None or pending.fingerprint != there):
            self._stats.count(prepared=1)
            self._in_flight.launch(there, partial(self._ask, following, limits, 0.0), speculative=True)
