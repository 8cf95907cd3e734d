"""An engine that sleeps in place of denoising, and the real daemon around it, in this process or a separate one.

`python fake_engine.py DIRECTORY [MODE [DEVICE]]` serves it as `dgemma-engine start --foreground` would; modes: `LOADS`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "engine"))

from dgemma_engine.errors import CheckpointError, EngineUnavailable
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.protocol.messages import Context, Draft, DraftSpan, Finish, Infill
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.serving import daemon
from dgemma_engine.tracing.recorder import Recorder

STEP_S = 0.005
SCRIPT = Path(__file__)
PATIENCE_S = 20.0


@dataclass(slots=True)
class Run:
    """The engine's record of one request."""

    context: Context
    num_begun: int = 0
    num_steps: int = 0
    num_after_cancel: int = 0
    """Steps that began although the request had been cancelled by then."""
    ended: bool = False


class SteppingEngine:
    """Makes one step per token of the longest middle; answers with the lengths of prefix and suffix.

    A `path` of `fault` raises `fault`, or an exception that quotes the prefix, as a careless library might. Drafts have
    the number of their step and repeat the prefix; they are sent after every step, even of a cancelled request.

    Args:
        step_s: seconds a step takes.
        sleep: waits for that long.
    """

    def __init__(self, *, step_s: float = STEP_S, sleep: Callable[[float], object] = time.sleep) -> None:
        self._step_s = step_s
        self._sleep = sleep
        self.fault: Exception | None = None
        self.model_name = "stepping"
        self.model_path = "/models/stepping"
        self.device = "cpu"
        self.number_format = "float32"
        self.compiled = False
        self.uncompiled_reason = "told not to"
        self.adapters: dict[str, str] = {}
        self.notice = ""
        self.denoising_steps = 0
        self.device_memory_bytes = 0
        self.runs: list[Run] = []
        self.order: list[str] = []
        """The prefix of each step's request."""

    @property
    def seen(self) -> list[Context]:
        """The requests that were started."""
        return [run.context for run in self.runs]

    def filling(
        self,
        context: Context,
        cancel: Cancel,
        *,
        on_draft: Callable[[Draft], None] = lambda _draft: None,
        recorder: Recorder | None = None,
    ) -> Pieces[Infill]:
        run = Run(context)
        self.runs.append(run)
        try:
            return (yield from self._steps(run, context, cancel, on_draft))
        finally:
            run.ended = True

    def _steps(self, run: Run, context: Context, cancel: Cancel, on_draft: Callable[[Draft], None]) -> Pieces[Infill]:
        if context.path == "fault":
            raise self.fault or RuntimeError(f"cannot tokenize {context.prefix}")
        for step in range(context.max_middle_tokens):
            if step:
                yield
            if (finish := cancel.finish) is not None:
                return Infill(text="", finish=finish, steps=step)
            run.num_after_cancel += cancel.cancelled
            run.num_begun += 1
            self.order.append(context.prefix)
            self._sleep(self._step_s)
            run.num_steps += 1
            self.denoising_steps += 1
            if context.drafts:
                on_draft(draft(context, run.num_steps))
        text = f"{len(context.prefix)}|{len(context.suffix)}"
        timings_ms = {"denoise": 1.0, "total": 1.0}
        return Infill(
            text=text, finish=Finish.STABLE, score=0.5, steps=context.max_middle_tokens, timings_ms=timings_ms
        )


def draft(context: Context, step: int) -> Draft:
    """The engine's draft after a step."""
    spans = (
        DraftSpan(text=f"{step}:", confidence=1.0, settled=True),
        DraftSpan(text=context.prefix, confidence=0.5, settled=False),
    )
    return Draft(request=context.drafts, step=step, text=f"{step}:{context.prefix}", spans=spans)


def load_ready(report: Callable[[int, str], None]) -> SteppingEngine:
    report(50, "half")
    return SteppingEngine()


def load_slowly(report: Callable[[int, str], None]) -> SteppingEngine:
    for percent in range(0, 100, 10):
        report(percent, "reading weights")
        time.sleep(0.1)
    return SteppingEngine()


def load_failing(report: Callable[[int, str], None]) -> SteppingEngine:
    raise CheckpointError("config.json: is missing;\n download the model again")


def load_without_end(report: Callable[[int, str], None]) -> SteppingEngine:
    report(10, "reading weights")
    time.sleep(600)
    return SteppingEngine()


def load_until_killed(report: Callable[[int, str], None]) -> SteppingEngine:
    # Waits for a client to attach, then ends as the kernel's out-of-memory killer ends a process.
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
    return SteppingEngine()


def load_on_a_failing_device(report: Callable[[int, str], None]) -> SteppingEngine:
    import torch

    engine = SteppingEngine()
    engine.fault = torch.AcceleratorError("CUDA error: unspecified launch failure\nDevice-side assertions")
    return engine


LOADS = {
    "ready": load_ready,
    "loading": load_slowly,
    "failing": load_failing,
    "stuck": load_without_end,
    "dying": load_until_killed,
    "failing device": load_on_a_failing_device,
}


def context(
    prefix: str = "def f(", suffix: str = ")", *, document: str = "a.py", steps: int = 1, **other: Any
) -> Context:
    """A request of `steps` steps with a long deadline."""
    values = {"deadline_ms": 60_000, "max_middle_tokens": steps} | other
    return Context(document=document, prefix=prefix, suffix=suffix, **values)


def location_in(directory: Path, device: str = "auto") -> EngineLocation:
    return EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(directory)}, device=device)


def command(directory: Path, mode: str = "ready", device: str = "auto") -> list[str]:
    return [sys.executable, str(SCRIPT), str(directory), mode, device]


async def attach(location: EngineLocation, **hooks: Any) -> EngineClient:
    """Attaches as soon as a daemon answers."""
    return await _patiently(lambda: EngineClient.attach(location, **hooks))


async def _patiently(reach: Callable[[], Awaitable[EngineClient]]) -> EngineClient:
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await reach()
        except EngineUnavailable:
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(directory: Path, load: Any = load_ready, **options: Any) -> AsyncIterator[EngineLocation]:
    """The real daemon on this event loop; stopped and waited for at the end."""
    location, stop = location_in(directory), asyncio.Event()
    served = asyncio.create_task(daemon.serve(location, load=load, stop=stop, **({"idle_s": None} | options)))
    try:
        await (await _patiently(lambda: EngineClient.attach_any(location))).close()
        yield location
    finally:
        stop.set()
        await asyncio.wait_for(served, PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds; fails after `PATIENCE_S` seconds."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, "the condition never came true"
        await asyncio.sleep(0.01)


def main(directory: str, mode: str = "ready", device: str = "auto") -> int:
    other_pid = daemon.run(location_in(Path(directory), device), load=LOADS[mode], idle_s=60.0)
    if other_pid is not None:
        sys.stdout.write(f"an engine already runs (pid {other_pid})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
