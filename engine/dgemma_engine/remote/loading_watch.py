"""The progress of an engine elsewhere: asked once when it is connected, and again while it loads or is idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from dgemma_engine.errors import EngineFault, EngineUnavailable, NotNow, OutOfReach
from dgemma_engine.protocol.remote_messages import ABOUT_PATH
from dgemma_engine.protocol.status_messages import EngineState, Progress, Status
from dgemma_engine.remote import fault_sentences
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.http_channel import Broken, HttpChannel
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.reply_reading import leave_alone, read_elapsed_ms, read_message, read_object

_ANSWER_S = 5.0
_POLL_S = 1.0
# Half of the time after which `dgemma-engine serve` closes an idle connection.
_IDLE_S = 15.0
# A question, its cancellation and the next question.
_NUM_CONNECTIONS = 3


class LoadingWatch:
    """Reports the progress of an engine.

    Args:
        channel: connections to it.
        network: receives the time of each round trip.
        back_off: how long a busy machine is left alone.
        on_progress: receives the progress whenever it changes.
        on_lost: receives why the engine cannot be asked any more, where no question reports that.
        clock: seconds that never go backwards.
        poll_s: seconds between two queries to an engine that loads.
    """

    def __init__(
        self,
        channel: HttpChannel,
        network: NetworkTime,
        back_off: BackOff,
        *,
        on_progress: Callable[[Progress], None],
        on_lost: Callable[[OutOfReach], None],
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = _POLL_S,
    ) -> None:
        self._channel = channel
        self._network = network
        self._back_off = back_off
        self._on_progress = on_progress
        self._on_lost = on_lost
        self._clock = clock
        self._poll_s = poll_s
        self._last: Progress | None = None
        self._polling: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Asks the engine for the first time, and opens the connections that questions use.

        Raises:
            OutOfReach: it cannot be asked.
        """
        await self._look()
        self._keeping = asyncio.create_task(self._keep_open())

    def begin(self) -> None:
        """Asks again until the engine is loaded: a question has found it loading."""
        if self._polling is None or self._polling.done():
            self._tell_progress(Progress(state=EngineState.LOADING, percent=0, message=self._place_of("loading")))
            self._polling = asyncio.create_task(self._poll())

    def tell(self, sentence: str) -> None:
        """Reports a sentence about an engine that is ready; an empty one clears the last."""
        if self._last is not None and self._last.state is EngineState.READY:
            message = sentence or self._place_of("engine")
            self._tell_progress(Progress(state=EngineState.READY, percent=100, message=message))

    def lost(self, why: OutOfReach) -> None:
        """Reports that the engine cannot be asked any more, found after the question that showed it was given up."""
        self._on_lost(why)

    async def status(self) -> Status:
        """Returns what the engine is and does.

        Raises:
            OutOfReach: it cannot be asked.
            EngineFault: it has no model yet.
        """
        body = await self._about()
        if body.get("status") is None:
            raise EngineFault(f"{self._channel.place}: the engine has no model yet")
        return self._read_status(body)

    async def wait_ready(self, timeout_s: float) -> Status:
        """Waits until the model is loaded, and returns what the engine is.

        Raises:
            EngineUnavailable: it cannot be asked, or `timeout_s` has passed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with suppress(NotNow):
                        body = await self._about()
                        if body.get("status") is not None:
                            return self._read_status(body)
                        if body.get("state") == EngineState.FAILED:
                            raise EngineUnavailable(self._failed())
                    await self._pause()
        except TimeoutError:
            late = f"no model was loaded within {timeout_s:g} s; there, `dgemma-engine status` says how far it is"
            raise EngineUnavailable(f"{self._channel.place}: {late}") from None

    async def close(self) -> None:
        """Stops asking."""
        tasks = [task for task in (self._polling, self._keeping) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _read_status(self, body: Mapping[str, Any]) -> Status:
        try:
            return read_message(body["status"], Status.from_wire)
        except Broken:
            raise OutOfReach(fault_sentences.of_foreign_answer(200, self._channel.place)) from None

    async def _look(self) -> None:
        body = await self._about()
        try:
            state, percent = EngineState(str(body.get("state"))), int(body.get("percent", 0))
        except (ValueError, TypeError, OverflowError):
            raise OutOfReach(fault_sentences.of_foreign_answer(200, self._channel.place)) from None
        if state is EngineState.FAILED:
            raise OutOfReach(self._failed())
        if state is EngineState.LOADING:
            message = self._place_of("loading")
            self._tell_progress(Progress(state=state, percent=min(max(percent, 0), 100), message=message))
            if self._polling is None or self._polling.done():
                self._polling = asyncio.create_task(self._poll())
        else:
            self._tell_progress(Progress(state=EngineState.READY, percent=100, message=self._place_of("engine")))

    async def _poll(self) -> None:
        while self._last is not None and self._last.state is EngineState.LOADING:
            await self._pause()
            try:
                with suppress(NotNow):
                    await self._look()
            except (EngineUnavailable, EngineFault) as error:
                self._on_lost(OutOfReach(str(error)))
                return

    async def _pause(self) -> None:
        await asyncio.sleep(max(self._poll_s, self._back_off.left_s))

    async def _keep_open(self) -> None:
        """Uses each connection before the other side closes it: the first key after a pause pays for no handshake.

        Where none of them answers, the engine is lost, and the user learns it before the next key.
        """
        while True:
            num_idle = _NUM_CONNECTIONS - self._channel.num_open
            # At once, so that each takes a connection of its own.
            replies = await asyncio.gather(*[self._about() for _ in range(num_idle)], return_exceptions=True)
            lost = [reply for reply in replies if isinstance(reply, OutOfReach)]
            if len(lost) == _NUM_CONNECTIONS:
                self._on_lost(lost[0])
                return
            await asyncio.sleep(_IDLE_S)

    async def _about(self) -> Mapping[str, Any]:
        place = self._channel.place
        leave_alone(place, self._back_off)
        for is_last in (False, True):
            since_s, reply = self._clock(), None
            try:
                async with asyncio.timeout(_ANSWER_S):
                    reply = await self._channel.get(ABOUT_PATH)
                if reply.status == 400 and reply.body is None and await self._channel.is_tls():
                    # The reply of an HTTPS server to plain HTTP.
                    raise OutOfReach(fault_sentences.of_tls(place))
                body = read_object(reply, place, self._back_off)
            except TimeoutError:
                raise OutOfReach(self._channel.no_answer()) from None
            except Broken:
                if is_last:
                    # A reply that no engine sends, or no reply.
                    why = reply and fault_sentences.of_foreign_answer(reply.status, place)
                    if not why and await self._channel.is_tls():
                        why = fault_sentences.of_tls(place)
                    raise OutOfReach(why or fault_sentences.broken_at_first(place)) from None
                continue
            self._network.learn((self._clock() - since_s) * 1_000, read_elapsed_ms(body))
            return body
        raise AssertionError

    def _tell_progress(self, progress: Progress) -> None:
        if progress != self._last:
            self._last = progress
            self._on_progress(progress)

    def _failed(self) -> str:
        return f"{self._channel.place}: its engine cannot load a model; there, `dgemma-engine status` says why"

    def _place_of(self, what: str) -> str:
        return f"{what} at {self._channel.place}"
