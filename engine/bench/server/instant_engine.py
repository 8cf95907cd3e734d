"""An engine without a model that answers at once, and how to serve it in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.protocol.messages import Context, Draft, Finish, Infill
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.serving import daemon
from dgemma_engine.serving.infill_engine import Load
from dgemma_engine.tracing.recorder import Recorder

SLOW_PATH = "slow.py"
"""A document of this path takes the engine 200 ms."""
_PIECES, _PIECE_S = 20, 0.01


class InstantEngine:
    """Answers `value` at once, except for a document of `SLOW_PATH`."""

    model_name = "instant"
    model_path = "instant"
    device = "cpu"
    number_format = "float32"
    compiled = False
    uncompiled_reason = ""
    adapters: dict[str, str] = {}  # noqa: RUF012, never written
    notice = ""
    denoising_steps = 0
    device_memory_bytes = 0

    def filling(
        self,
        context: Context,
        cancel: Cancel,
        *,
        on_draft: Callable[[Draft], None] = lambda _draft: None,
        recorder: Recorder | None = None,
    ) -> Pieces[Infill]:
        """Returns a short middle."""
        for _ in range(_PIECES if context.path == SLOW_PATH else 0):
            if (finish := cancel.finish) is not None:
                return Infill(text="", finish=finish)
            time.sleep(_PIECE_S)
            yield
        return Infill(text="value", finish=Finish.STABLE, score=0.9, steps=1, timings_ms={"total": 0.0})


def load(_report: Callable[[int, str], None]) -> InstantEngine:
    """Loads nothing."""
    return InstantEngine()


@asynccontextmanager
async def process(location: EngineLocation, load: Load = load) -> AsyncGenerator[EngineClient]:
    """Gives a client of an engine, which runs in a process of its own for as long as the block lasts."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(location, load))
    process.start()
    try:
        while not location.socket.exists():
            await asyncio.sleep(0.05)
        async with await EngineClient.attach(location) as client:
            await client.wait_ready(60)
            yield client
    finally:
        process.terminate()
        process.join()


def _run(location: EngineLocation, load: Load) -> None:
    daemon.run(location, load=load, idle_s=None)
