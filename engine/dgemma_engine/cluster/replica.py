"""One engine of several: the device thread of a resident engine under the application of the HTTP server.

Ray Serve calls its constructor, which loads the model or raises; `reconfigure`, which applies limits; `check_health`,
which raises once only another replica can help; `application`, which answers HTTP; and `infill`, which answers other
deployments. Imports no Ray, so that all of it can run in one process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from dgemma_engine.cluster.arguments import EngineArguments, ReplicaLimits, http_settings, read_limits
from dgemma_engine.cluster.device_engine import DeviceEngine
from dgemma_engine.cluster.measurements import Measurements, Meter
from dgemma_engine.cluster.replica_app import ReplicaApp
from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.errors import EngineFault, EngineUnavailable, WrongUsage
from dgemma_engine.http_api.app import create_app
from dgemma_engine.http_api.completions.completion_service import FAULT
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.messages import Context, Draft, Finish, Infill
from dgemma_engine.protocol.status_messages import EngineState, Progress
from dgemma_engine.serving.device_thread import DeviceThread
from dgemma_engine.serving.engine_status import Chosen
from dgemma_engine.serving.infill_engine import Load

_log = logging.getLogger(__name__)

# From the loss of a card to the end of the process: waiting requests are answered meanwhile.
_END_DELAY_S = 0.5


class Replica:
    """A loaded engine.

    Args:
        arguments: of the application.
        limits: until `reconfigure` brings others.
        load: makes the engine, on the device thread.
        meter: receives what is measured.
        end: ends the process, so that Ray starts another; called once the card is lost.
        clock: seconds that never go backwards.

    Attributes:
        app: the HTTP server over this engine; stays the same when limits change.
        device: owns the model.

    Raises:
        EngineUnavailable: the model cannot be loaded; the message is the engine's own sentence.
        WrongUsage: the file of keys cannot be used.
    """

    def __init__(
        self,
        arguments: EngineArguments,
        limits: ReplicaLimits,
        *,
        load: Load,
        meter: Meter,
        end: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arguments, self._limits, self._end = arguments, limits, end
        # From the first health check on, which ends a replica's start.
        self._is_up = False
        self._keys_stamp = _stamp(arguments)
        settings = http_settings(arguments, limits)
        self._measurements = Measurements(meter)
        self._settled = threading.Event()
        self.device = DeviceThread(
            load, clock=clock, on_progress=self._progressed_on_thread, on_device_lost=self._lost_on_thread
        )
        chosen = Chosen(model=arguments.model, device=arguments.device)
        self._engine = DeviceEngine(self.device, chosen, clock=clock)
        self._clock = clock
        self.app = ReplicaApp(self._http_app(settings))
        self.device.start()
        self._settled.wait()
        if self.device.progress.state is EngineState.FAILED:
            raise EngineUnavailable(self.device.progress.message)

    def reconfigure(self, user_config: Mapping[str, Any] | None) -> None:
        """Applies other limits and a changed file of keys; the model and the requests under way stay.

        Those of the start have to be right. Later ones that cannot be used are refused, in the log and as a gauge, and
        the earlier ones stay: Ray would replace a replica that raises, and the new one would fail too.

        Raises:
            WrongUsage: at the start, on an unknown field, a wrong value or a file of keys that cannot be used.
        """
        self._take(lambda: read_limits(user_config))

    async def check_health(self) -> None:
        """Measures, reads a changed file of keys, and raises where this replica cannot answer any more.

        Raises:
            EngineUnavailable: the card is lost, or one step takes longer than any should.
        """
        self._is_up = True
        if _stamp(self._arguments) != self._keys_stamp:
            self._take(lambda: self._limits)
        if (status := await self._engine.about()) is not None:
            self._measurements.sampled(status, self.app.num_under_way)
        if self.device.is_lost:
            raise EngineUnavailable("the card is lost")
        if (step_s := self.device.step_s) > self._limits.longest_step_s:
            raise EngineUnavailable(f"the engine has been in one step for {step_s:.0f} s")

    async def infill(self, question: Mapping[str, Any], session: str) -> AsyncGenerator[dict[str, Any]]:
        """Answers another deployment: drafts, if the question asks for them, and last the answer, as messages.

        Args:
            question: a `Context` as a message; its `deadline_ms` counts from now.
            session: whose document it is; a session never sees the text of another.

        Raises:
            ValueError: the question cannot be used.
            EngineFault: the engine failed on this question.
        """
        context = Context.from_wire(question)
        context = replace(context, document=f"handle/{session}/{context.document}")
        drafts = asyncio.Queue[Draft | None]()

        async def answer() -> Infill | ConnectionStatus:
            end, counted = FAULT, None
            try:
                infill = await self._engine.infill(context, drafts.put_nowait if context.drafts else None)
                if isinstance(infill, Infill):
                    end, counted = infill.finish, infill
                return infill
            except asyncio.CancelledError:
                end = Finish.CANCELLED
                raise
            finally:
                self._measurements.ended(end, counted)
                drafts.put_nowait(None)

        self.app.num_under_way += 1
        work = asyncio.create_task(answer())
        try:
            while (draft := await drafts.get()) is not None:
                yield {"draft": draft.to_wire()}
            infill = await work
            if isinstance(infill, ConnectionStatus):
                raise EngineFault(infill.message)
            yield {"answer": infill.to_wire()}
        finally:
            self.app.num_under_way -= 1
            work.cancel()

    def close(self) -> None:
        """Ends the device thread; waiting requests are answered as cancelled."""
        self.device.stop()

    def _take(self, read: Callable[[], ReplicaLimits]) -> None:
        """Takes limits and the file of keys over, or refuses them; see `reconfigure`."""
        self._keys_stamp = _stamp(self._arguments)
        try:
            limits = read()
            settings = http_settings(self._arguments, limits)
        except WrongUsage as error:
            if not self._is_up:
                raise
            _log.error("the earlier limits and keys stay: %s", error)
            self._measurements.reloaded(is_refused=True)
            return
        self._limits = limits
        self._measurements.reloaded(is_refused=False)
        # A request sent as changes to one that only the former application has kept is requested again, whole.
        self.app.app = self._http_app(settings)

    def _http_app(self, settings: HttpSettings) -> ASGIApp:
        return create_app(self._engine, settings, clock=self._clock, on_end=self._measurements.ended)

    def _progressed_on_thread(self, progress: Progress) -> None:
        if progress.state is not EngineState.LOADING:
            self._settled.set()

    def _lost_on_thread(self) -> None:
        threading.Timer(_END_DELAY_S, self._end).start()


def _stamp(arguments: EngineArguments) -> tuple[int, int, int]:
    """Returns a value that changes whenever the file of keys is written; zeros where it is missing."""
    if not arguments.api_key_file:
        return (0, 0, 0)
    try:
        found = Path(arguments.api_key_file).expanduser().stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
