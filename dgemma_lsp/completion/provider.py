"""Where an answer comes from: what was said before, a question under way that still agrees, the engine; in this order.

Wires store, flights and debounce. Knows no protocol types and no settings; the clock is an argument.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from dgemma_engine.protocol.messages import Infill, OnDraft

from dgemma_lsp.completion.cache import Answer, AnswerStore
from dgemma_lsp.completion.debounce import Latency, Patience, Rhythm
from dgemma_lsp.completion.fingerprint import Place, typed_since
from dgemma_lsp.completion.in_flight import Flight, Flights, Outcome
from dgemma_lsp.completion.resume import Shaped, accepted, resume
from dgemma_lsp.context.builder import ContextLimits, build_context
from dgemma_lsp.context.collector import Gathered
from dgemma_lsp.engine_client.connection import EngineLink, LinkState, LinkStatus
from dgemma_lsp.metrics.events import Source
from dgemma_lsp.metrics.session_counters import Tally
from dgemma_lsp.postprocess.pipeline import Completion
from dgemma_lsp.request import Channel, Request, Trigger
from dgemma_lsp.selected import as_if_accepted

_log = logging.getLogger(__name__)

# Who types on sees an item for less than this; nobody accepts one sooner.
_SPECULATE_AFTER_S = 0.15
# How long a question waits for an engine that is starting: ghost text may come late, a menu holds up all its entries.
_HOLD_MS = {Channel.GHOST_TEXT: 10_000.0, Channel.MENU: 300.0}


@dataclass(slots=True, kw_only=True)
class _Typing:
    """What the user does in one document.

    Attributes:
        rhythm: of the keys.
        is_edited: whether an edit came since the last question.
        deleted: whether the last edit only took text away.
        said_nothing: whether the engine had nothing to say when it was asked last, and no key was held back since.
        shown: the answer behind the item that is shown.
    """

    rhythm: Rhythm
    is_edited: bool = False
    deleted: bool = False
    said_nothing: bool = False
    shown: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What an answer has for a question.

    Attributes:
        completions: best first; may be empty.
        answer: where they come from.
        wait_ms: how long the next key was waited for.
    """

    completions: tuple[Completion, ...]
    answer: Answer
    wait_ms: float = 0.0


class Sources:
    """What answers the questions of one editor.

    Args:
        link: gives the way to the engine.
        gather: finds text from elsewhere for a question.
        clock: seconds that never go backwards.
        tally: where everything is counted.
        is_current: whether a question's document is still as it was.
        on_activity: told whether the engine works on a question, when that changes.
        on_infill: told whatever the engine has answered to a question that was asked.
        patience: how long to wait for the next key.
    """

    def __init__(
        self,
        link: Callable[[], EngineLink],
        gather: Callable[[Request], Awaitable[Gathered]],
        *,
        clock: Callable[[], float],
        tally: Tally,
        is_current: Callable[[Request], bool],
        on_activity: Callable[[bool], None],
        on_infill: Callable[[Infill], None],
        patience: Patience | None = None,
    ) -> None:
        self._link = link
        self._gather = gather
        self._clock = clock
        self._tally = tally
        self._is_current = is_current
        self._on_infill = on_infill
        self._patience = patience or Patience()
        self._latency = Latency(self._patience)
        self._store = AnswerStore()
        self._shaped = Shaped()
        self._flights = Flights(on_landed=self._landed, on_activity=on_activity)
        self._documents: dict[str, _Typing] = {}
        self._speculations: dict[str, asyncio.TimerHandle] = {}

    def changed(self, uri: str, text: str, edited: int, *, deleted: bool) -> None:
        """Takes note of an edit; ends work that cannot answer a question about the new text.

        Args:
            uri: the document.
            text: its new text.
            edited: where the edit ends.
            deleted: whether it only took text away.
        """
        typing = self._typing(uri)
        typing.rhythm.key(self._clock())
        typing.is_edited, typing.deleted = True, deleted
        flight = self._flights.get(uri)
        if flight is not None and not flight.may_serve(text, edited):
            flight.give_up()

    def closed(self, uri: str) -> None:
        """Forgets a document; who waits for an answer gets none."""
        self._put_off(uri)
        self._flights.give_up_document(uri)
        self._store.forget(uri)
        self._documents.pop(uri, None)

    def forget(self) -> None:
        """Forgets all answers: they were made under other settings."""
        self._store.clear()
        for uri in list(self._documents):
            self._put_off(uri)
            self._flights.give_up_document(uri)

    async def close(self) -> None:
        """Ends what is under way."""
        for uri in list(self._speculations):
            self._put_off(uri)
        await self._flights.close()

    async def answer(
        self, request: Request, limits: ContextLimits, *, speculate: bool, since_s: float
    ) -> tuple[Completion, ...]:
        """Returns what to show, best first; empty for nothing.

        Cancelling the caller, as a newer question does, leaves the engine's work to that for a moment.

        Args:
            request: the question.
            limits: how much text to send, how much to ask for.
            speculate: whether to prepare what follows once the best completion was accepted.
            since_s: when the question came.
        """
        typing = self._typing(request.uri)
        if not typing.is_edited:
            typing.rhythm.key(self._clock())
        typing.is_edited = False
        self._put_off(request.uri)
        source = Source.STORE
        if given := self._known(request, typing):
            # Whatever is under way is about a text that is not there any more.
            self._flights.give_up(request.uri)
        elif given := await self._from_flights(request, typing):
            source = Source.FLIGHT
        elif request.trigger is Trigger.AUTOMATIC and typing.deleted:
            source = Source.NOT_ASKED
        else:
            source, given = await self._from_engine(request, limits, typing)
        completions = self._give(request, source, given, typing, since_s)
        if completions and speculate:
            self._speculate_soon(request, completions[0], limits)
        return completions

    def _known(self, request: Request, typing: _Typing) -> _Given | None:
        """Returns what an earlier answer says, the one behind the shown item first; None if none says anything.

        An unlikely answer serves questions by hand, and automatic ones only while the user types the item it shows.
        """
        matches = self._store.matches(as_if_accepted(request))
        for match in sorted(matches, key=lambda match: match.answer is not typing.shown):
            is_here = not match.num_typed
            is_typed_through = match.answer is typing.shown and not is_here
            if request.trigger is Trigger.AUTOMATIC and match.answer.infill.unlikely and not is_typed_through:
                continue
            completions = resume(request, match, self._shaped)
            # Who asks expressly does not want to hear again that there was nothing.
            if completions or (is_here and request.trigger is Trigger.AUTOMATIC):
                return _Given(completions=completions, answer=match.answer)
        return None

    async def _from_flights(self, request: Request, typing: _Typing) -> _Given | None:
        """Waits for what is under way, as long as it agrees with what was typed since; ends it if it does not."""
        asked = as_if_accepted(request)
        place = Place.of(asked)
        for speculative in (False, True):
            if (flight := self._flights.get(request.uri, speculative=speculative)) is None:
                continue
            if flight.place.leads_to(place, asked.text, skipped=asked.skipped):
                typed = typed_since(flight.place.offset - asked.skipped, asked.text, asked.offset)
                if flight.agrees(typed):
                    self._tally.adopted += 1
                    await flight.outcome(typed)
                    if given := self._known(request, typing):
                        return given
            flight.give_up()
        return None

    async def _from_engine(
        self, request: Request, limits: ContextLimits, typing: _Typing
    ) -> tuple[Source, _Given | None]:
        wait_s = 0.0
        if request.trigger is Trigger.AUTOMATIC:
            wait_s = typing.rhythm.wait_s(self._clock(), self._latency.mean_s, said_nothing=typing.said_nothing)
            # Every second key is asked about, or an engine with nothing to say would not be asked again before a pause.
            typing.said_nothing = False
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if not self._is_current(request):
                return Source.NOT_ASKED, None
        outcome = await self._launch(as_if_accepted(request), limits, speculative=False).outcome("")
        if outcome is None and not self._is_current(request):
            # What was asked about is not there any more: superseded, by an edit in place of a newer question.
            raise asyncio.CancelledError
        if not isinstance(outcome, Infill):
            return Source.NOT_ASKED if isinstance(outcome, LinkStatus) else Source.ENGINE, None
        _log.debug("%s after %d steps, %s", outcome.finish, outcome.steps, outcome.timings_ms)
        given = self._known(request, typing)
        typing.said_nothing = given is None or not given.completions
        return Source.ENGINE, given and replace(given, wait_ms=wait_s * 1_000)

    def _launch(self, request: Request, limits: ContextLimits, *, speculative: bool) -> Flight:
        async def ask(on_draft: OnDraft) -> Infill | LinkStatus:
            asked_s = self._clock()
            await self._link().settled(_HOLD_MS[request.channel])
            started_s = self._clock()
            try:
                gathered = await self._gather(request)
                gathered_s = self._clock()
                context = build_context(request, limits, snippets=gathered.snippets, edits=gathered.edits)
                context = replace(context, document=request.uri, speculative=speculative)
                answer = await self._link().infill(context, None if speculative else on_draft)
            except asyncio.CancelledError:
                if not speculative:
                    self._latency.exceeds(self._clock() - started_s)
                raise
            if not isinstance(answer, Infill):
                return answer
            if not speculative:
                self._latency.learn(self._clock() - started_s)
            stages_ms = {"start": (started_s - asked_s) * 1_000, "context": (gathered_s - started_s) * 1_000}
            return replace(answer, timings_ms=answer.timings_ms | stages_ms)

        return self._flights.launch(request.uri, Place.of(request), ask, speculative=speculative)

    def _landed(self, flight: Flight, outcome: Outcome) -> None:
        is_answer = isinstance(outcome, Infill)
        self._tally.spent(outcome.steps if is_answer else flight.num_steps, speculative=flight.speculative)
        if is_answer:
            self._store.put(Answer(place=flight.place, infill=outcome, speculative=flight.speculative))
            if not flight.speculative:
                self._on_infill(outcome)

    def _give(
        self, request: Request, source: Source, given: _Given | None, typing: _Typing, since_s: float
    ) -> tuple[Completion, ...]:
        """Counts an answer on its way to the editor, and remembers it as shown; empty if the text is another by now."""
        given = given if self._is_current(request) else None
        completions = given.completions if given is not None else ()
        if given is not None:
            if source is Source.STORE and completions and given.answer is typing.shown:
                source = Source.TYPED_THROUGH
            if self._store.use(given.answer):
                answer = given.answer
                self._tally.used(answer.infill.steps, speculative=answer.speculative, has_item=bool(completions))
        typing.shown = given.answer if given is not None and completions else None
        total_ms = (self._clock() - since_s) * 1_000
        stages_ms = _stages_ms(source, given, total_ms)
        self._tally.answered(source, has_item=bool(completions), total_ms=total_ms, stages_ms=stages_ms)
        return completions

    def _speculate_soon(self, request: Request, completion: Completion, limits: ContextLimits) -> None:
        # An item that replaces text right of the cursor changes the suffix, which stands first in the prompt: asking
        # behind it would cost the document its prompt cache.
        if completion.end == completion.cursor:
            self._speculations[request.uri] = asyncio.get_running_loop().call_later(
                _SPECULATE_AFTER_S, self._speculate, request, completion, limits
            )

    def _speculate(self, request: Request, completion: Completion, limits: ContextLimits) -> None:
        """Asks what follows once a shown completion was accepted."""
        del self._speculations[request.uri]
        is_free = self._link().status.state is LinkState.READY and self._flights.get(request.uri) is None
        if not (is_free and self._is_current(request)):
            return
        following = accepted(request, completion)
        place = Place.of(following)
        under_way = self._flights.get(request.uri, speculative=True)
        if not self._store.has(place) and (under_way is None or under_way.place != place):
            self._tally.prepared += 1
            self._launch(following, limits, speculative=True)

    def _put_off(self, uri: str) -> None:
        if (speculation := self._speculations.pop(uri, None)) is not None:
            speculation.cancel()

    def _typing(self, uri: str) -> _Typing:
        return self._documents.setdefault(uri, _Typing(rhythm=Rhythm(self._patience)))


def _stages_ms(source: Source, given: _Given | None, total_ms: float) -> dict[str, float]:
    """Returns where the time of an answer went; nothing where the work on an earlier question was waited for."""
    if given is None or source is Source.FLIGHT:
        return {}
    if source is not Source.ENGINE:
        return {"server": total_ms}
    timings_ms = given.answer.infill.timings_ms
    stages_ms = {("engine" if stage == "total" else stage): spent for stage, spent in timings_ms.items()}
    stages_ms["wait"] = given.wait_ms
    elsewhere_ms = sum(stages_ms.get(stage, 0.0) for stage in ("start", "wait", "context", "engine"))
    stages_ms["server"] = max(total_ms - elsewhere_ms, 0.0)
    return stages_ms
