"""Questions under way at the engine: each its own task, which outlives the request that began it.

A request that is superseded or taken back is answered at once; the work on it goes on for as long as somebody may still
want it. Knows no editor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dgemma_engine.protocol.messages import Draft, Infill, OnDraft

from dgemma_lsp.completion.fingerprint import Place, typed_since
from dgemma_lsp.engine_client.connection import LinkStatus

_log = logging.getLogger(__name__)

Outcome = Infill | LinkStatus | None
"""What came of a flight: the engine's answer, what stood in the way, or None for one that was given up."""

Ask = Callable[[OnDraft], Awaitable[Infill | LinkStatus]]
"""Asks the engine, which tells its drafts to the argument. Being cancelled takes the question back."""


class Flight:
    """One question under way. Made by `Flights.launch`.

    Args:
        place: where it was asked.
        ask: asks it.
        on_landed: told the outcome, once.
        grace_s: how long the work goes on while nobody waits for it.
        speculative: whether it was begun for nobody; then it goes on without anybody.

    Attributes:
        place: where it was asked.
        speculative: whether it was begun for nobody.
        num_steps: denoising steps that the drafts have told of.
    """

    def __init__(
        self,
        place: Place,
        ask: Ask,
        *,
        on_landed: Callable[[Flight, Outcome], None],
        grace_s: float,
        speculative: bool,
    ) -> None:
        self.place = place
        self.speculative = speculative
        self.num_steps = 0
        self._on_landed = on_landed
        self._grace_s = grace_s
        self._draft: str | None = None
        self._outcome: Outcome = None
        self._num_waiting = 0
        self._given_up: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self.landed = False
        self.task = asyncio.create_task(self._fly(ask))

    def agrees(self, typed: str) -> bool:
        """Whether the work may still answer the question that `typed` makes of its own."""
        return not typed or (self._draft is not None and self._draft.startswith(typed) and self._draft != typed)

    def may_serve(self, text: str, edited: int) -> bool:
        """Whether the work may answer a question about the document's new text, in which an edit ends at `edited`."""
        # Behind an opener editors put its closer too, and the cursor between the two.
        uri, elsewhere = self.place.uri, self.place.elsewhere
        return any(
            self.place.leads_to(Place.at(uri, text, cursor, elsewhere=elsewhere), text)
            and self.agrees(typed_since(self.place.offset, text, cursor))
            for cursor in range(edited, max(edited - 2, -1), -1)
        )

    async def outcome(self, typed: str) -> Outcome:
        """Waits until it lands; None when it is given up, or as soon as its drafts do not begin with `typed`.

        Cancelling the caller leaves the work alone for the time of grace.
        """
        self._num_waiting += 1
        if self._given_up is not None:
            self._given_up.cancel()
            self._given_up = None
        try:
            while not self.landed and self.agrees(typed):
                await self._news.wait()
        finally:
            self._num_waiting -= 1
            if not (self._num_waiting or self.landed or self.speculative):
                self._given_up = asyncio.get_running_loop().call_later(self._grace_s, self.give_up)
        return self._outcome

    def give_up(self) -> None:
        """Takes the question back; who waits is told at once."""
        if not self.landed:
            self._land(None)
            self.task.cancel()

    async def _fly(self, ask: Ask) -> None:
        try:
            outcome = await ask(self._drafted)
        except Exception as error:
            # Its message may quote the user's text.
            _log.error("a question to the engine failed with %s", type(error).__name__)
            outcome = None
        finally:
            if self._given_up is not None:
                self._given_up.cancel()
        if not self.landed:
            self._land(outcome)

    def _drafted(self, draft: Draft) -> None:
        self._draft, self.num_steps = draft.text, draft.step
        self._tell()

    def _land(self, outcome: Outcome) -> None:
        self.landed, self._outcome = True, outcome
        self._tell()
        self._on_landed(self, outcome)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Flights:
    """The flights by key: one for what is asked and one for what is prepared.

    Args:
        on_landed: told of every flight and what came of it, once.
        on_activity: told whether anything is under way that was asked for, when that changes.
        grace_s: how long work goes on that nobody waits for: 0 ends it with its request, large computes in vain.
    """

    def __init__(
        self,
        *,
        on_landed: Callable[[Flight, Outcome], None],
        on_activity: Callable[[bool], None],
        grace_s: float = 0.2,
    ) -> None:
        self._on_landed = on_landed
        self._on_activity = on_activity
        self._grace_s = grace_s
        self._flights: dict[tuple[str, bool], Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._active = False

    def launch(self, key: str, place: Place, ask: Ask, *, speculative: bool = False) -> Flight:
        """Asks the engine; the older flight of the same key is given up.

        Args:
            key: what only one question at a time may be asked for.
            place: where it is asked.
            ask: asks it.
            speculative: whether nobody waits for it.
        """
        older = self._flights.get((key, speculative))

        def landed(flight: Flight, outcome: Outcome) -> None:
            if self._flights.get((key, speculative)) is flight:
                del self._flights[key, speculative]
            self._on_landed(flight, outcome)
            self._show()

        flight = Flight(place, ask, on_landed=landed, grace_s=self._grace_s, speculative=speculative)
        self._flights[key, speculative] = flight
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        if older is not None:
            older.give_up()
        self._show()
        return flight

    def get(self, key: str, *, speculative: bool = False) -> Flight | None:
        """Returns what is under way."""
        return self._flights.get((key, speculative))

    def give_up(self, key: str, *, speculative: bool = False) -> None:
        """Ends what is under way, if anything is."""
        if (flight := self._flights.get((key, speculative))) is not None:
            flight.give_up()

    def give_up_document(self, uri: str) -> None:
        """Ends everything that is under way for one document."""
        for flight in [flight for flight in self._flights.values() if flight.place.uri == uri]:
            flight.give_up()

    async def close(self) -> None:
        """Ends everything, and waits until the engine was told."""
        for flight in list(self._flights.values()):
            flight.give_up()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _show(self) -> None:
        active = any(not flight.speculative for flight in self._flights.values())
        if active != self._active:
            self._active = active
            self._on_activity(active)
