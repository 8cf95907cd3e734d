"""The real engine behind its socket, with a record of every run: `python watched_engine.py RUNTIME RECORD MODEL`.

A line of JSON per run: its owner, when it arrived, began, was cancelled and ended (seconds of the clock that all
processes of a machine share), the instants of its denoising steps, the prompt tokens it encoded, and how it finished.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.infill.engine import Engine
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.protocol.messages import Context, Draft, Infill
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.serving import daemon
from dgemma_engine.tracing.recorder import Recorder


class _Stamped(threading.Event):
    """An event that stores when it was set."""

    at_s: float | None = None

    def set(self) -> None:
        if self.at_s is None:
            self.at_s = time.monotonic()
        super().set()


class WatchedEngine:
    """The engine, and a line for each run."""

    def __init__(self, engine: Engine, record: Path) -> None:
        self._engine = engine
        self._record = record.open("a", encoding="utf-8", buffering=1)
        self.model_name, self.model_path, self.device = engine.model_name, engine.model_path, engine.device
        self.compiled, self.uncompiled_reason = engine.compiled, engine.uncompiled_reason
        self.number_format = engine.number_format

    @property
    def adapters(self) -> dict[str, str]:
        return self._engine.adapters

    @property
    def denoising_steps(self) -> int:
        return self._engine.denoising_steps

    @property
    def device_memory_bytes(self) -> int:
        return self._engine.device_memory_bytes

    @property
    def notice(self) -> str:
        return self._engine.notice

    def filling(
        self,
        context: Context,
        cancel: Cancel,
        *,
        on_draft: Callable[[Draft], None] = lambda _draft: None,
        recorder: Recorder | None = None,
    ) -> Pieces[Infill]:
        stamped = _Stamped()
        if cancel.cancelled:
            stamped.set()
        # A cancellation that sets the old event in between has no effect before the deadline; none has been seen.
        object.__setattr__(cancel, "event", stamped)
        steps_s: list[float] = []

        def drafted(draft: Draft) -> None:
            steps_s.append(time.monotonic())
            on_draft(draft)

        started_s = time.monotonic()
        infill = yield from self._engine.filling(context, cancel, drafted, recorder=recorder)
        row: dict[str, Any] = {
            "document": context.document,
            "speculative": context.speculative,
            "arrived_s": cancel.deadline_s - context.deadline_ms / 1_000,
            "started_s": started_s,
            "cancelled_s": stamped.at_s,
            "ended_s": time.monotonic(),
            "steps": infill.steps,
            "steps_s": steps_s,
            "encoded": infill.encoded_tokens,
            "finish": infill.finish.value,
            "timings_ms": infill.timings_ms,
        }
        self._record.write(json.dumps(row) + "\n")
        return infill


def main() -> None:
    """Serves until it is stopped."""
    location = EngineLocation.locate(os.environ | {"DGEMMA_RUNTIME_DIR": sys.argv[1]}, model=sys.argv[3])

    def load(report: Callable[[int, str], None]) -> WatchedEngine:
        return WatchedEngine(Engine.load(model_folder(sys.argv[3]), device="cpu", report=report), Path(sys.argv[2]))

    daemon.run(location, load=load, idle_s=None)


if __name__ == "__main__":
    main()
