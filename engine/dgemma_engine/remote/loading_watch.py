"""How far an engine elsewhere is: asked once when it is connected, and again while it loads or rests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from dgemma_engine.errors import EngineFault, EngineUnavailable, OutOfReach
from dgemma_engine.protocol.messages import EngineState, Progress
from dgemma_engine.protocol.remote_messages import ABOUT_PATH
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.remote import fault_sentences
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.http_channel import Broken, HttpChannel
from dgemma_engine.remote.network_time import NetworkTime
from dgemma_engine.remote.reply_reading import read_message, read_object

_ANSWER_S = 5.0
_POLL_S = 1.0
# Connections are kept open, and so found to be dead, while the user works.
_IDLE_S, _UNUSED_S = 15.0, 600.0
# A question, its cancellation and the next question.
_NUM_CONNECTIONS = 3


class LoadingWatch:
    """Tells the progress of an engine.

    Args:
        channel: connections to it.
        network: told what a round trip takes.
        on_progress: receives the progress whenever it changes.
        on_lost: called when the engine cannot be asked while it loads.
        clock: seconds that never go backwards.
        poll_s: seconds between two looks at an engine that loads.
    """

    def __init__(
        self,
        channel: HttpChannel,
        network: NetworkTime,
        *,
        on_progress: Callable[[Progress], None],
        on_lost: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = _POLL_S,
    ) -> None:
        self._channel = channel
        self._network = network
        self._on_progress = on_progress
        self._on_lost = on_lost
        self._clock = clock
        self._poll_s = poll_s
        self._last: Progress | None = None
        self._polling: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks at the engine for the first time, and opens the connections that questions use.

        Raises:
            OutOfReach: it cannot be asked.
        """
        await self._look()
        self._keeping = asyncio.create_task(self._keep_open())

    def begin(self) -> None:
        """Looks again until the engine is loaded: a question has found it loading."""
        if self._polling is None or self._polling.done():
            self._tell_progress(Progress(state=EngineState.LOADING, percent=0, message=self._place_of("loading")))
            self._polling = asyncio.create_task(self._poll())

    def tell(self, message: str) -> None:
        """Adds a sentence to the state of an engine that is ready."""
        self._tell_progress(Progress(state=EngineState.READY, percent=100, message=message))

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
                body = await self._about()
                while body.get("status") is None:
                    if body.get("state") == EngineState.FAILED:
                        raise EngineUnavailable(self._failed())
                    await asyncio.sleep(self._poll_s)
                    body = await self._about()
        except TimeoutError:
            raise EngineUnavailable(f"{self._channel.place}: no model was loaded within {timeout_s:g} s") from None
        return self._read_status(body)

    async def close(self) -> None:
        """Looks no more."""
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
        except (ValueError, TypeError):
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
            await asyncio.sleep(self._poll_s)
            try:
                await self._look()
            except (EngineUnavailable, EngineFault):
                self._on_lost()
                return

    async def _keep_open(self) -> None:
        # A question that follows another at once must not wait for a handshake.
        await asyncio.gather(*[self._about() for _ in range(_NUM_CONNECTIONS)], return_exceptions=True)
        used_s = self._clock()
        while self._clock() - used_s < _UNUSED_S:
            await asyncio.sleep(_IDLE_S)
            if self._channel.idle_s < _IDLE_S:
                used_s = self._clock()
            else:
                with suppress(EngineUnavailable, EngineFault):
                    await self._about()

    async def _about(self) -> Mapping[str, Any]:
        place = self._channel.place
        for is_last in (False, True):
            since_s = self._clock()
            try:
                async with asyncio.timeout(_ANSWER_S):
                    reply = await self._channel.get(ABOUT_PATH)
            except TimeoutError:
                raise OutOfReach(fault_sentences.no_answer(place)) from None
            except Broken:
                if is_last:
                    raise OutOfReach(fault_sentences.broken(place)) from None
                continue
            body = read_object(reply, place, BackOff(self._clock))
            elapsed_ms = body.get("elapsed_ms")
            total_ms = (self._clock() - since_s) * 1_000
            self._network.learn(total_ms, elapsed_ms if isinstance(elapsed_ms, int | float) else 0.0)
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
