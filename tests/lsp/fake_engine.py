"""An engine that runs without a model: answers by the text left of the cursor, slowly or not at all on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dgemma_engine.ipc.client import EngineFault, EngineUnavailable
from dgemma_engine.postprocess.shape import shaper
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import (
    AdapterUse,
    Candidate,
    CandidateSource,
    Context,
    Draft,
    DraftSpan,
    Finish,
    Infill,
)
from dgemma_engine.protocol.status_messages import EngineState, Progress, Status

DEATH = "the engine has ended; start one with: dgemma-engine start"


class FakeEngine:
    """Answers with the value in `answers` whose key ends the prefix, shaped as the engine does; a list is candidates.

    The words SLOW, LATER, DRAFT, FAULT, LATE and DIE in the cursor's line make it work until cancelled or closed,
    answer after half a second, send a draft half a second before the answer, answer with a fault, run out of time, or
    end; PATH makes it record the path of the request, UNLIKELY answer only insistent requests, and ADAPTER report an
    adapter, which is off where the line has OFF.
    """

    def __init__(
        self,
        *,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        record: Callable[[str], None] = lambda _: None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._answers = dict(answers or {})
        self._record = record
        self._on_closed = on_closed
        self.contexts: list[Context] = []
        self.closed = False
        self._ended = asyncio.Event()

    async def infill(self, context: Context, on_draft: Callable[[Draft], None] | None = None) -> Infill:
        self.contexts.append(context)
        line = context.prefix.rpartition("\n")[2]
        self._record(f"asked {line}" + " speculative" * context.speculative)
        if context.least_column >= 0:
            self._record(f"may leave its block down to column {context.least_column}")
        if "PATH" in line:
            self._record(f"path {context.path}")
        if "SLOW" in line:
            try:
                await asyncio.wait_for(self._ended.wait(), 60)
            except asyncio.CancelledError:
                self._record(f"cancelled {line}")
                raise
            raise EngineUnavailable(DEATH)
        texts = next((texts for end, texts in self._answers.items() if context.prefix.endswith(end)), "")
        texts = [texts] if isinstance(texts, str) else list(texts)
        unlikely = "UNLIKELY" in line and bool(texts)
        if unlikely and not context.insistent:
            texts = []
        text = texts[0] if texts else ""
        if "LATER" in line:
            await asyncio.sleep(0.5)
        if "DRAFT" in line and text:
            await self._draft(text, line, on_draft)
        if "FAULT" in line:
            raise EngineFault("out of memory; use a smaller model")
        if "DIE" in line:
            self.closed = True
            self._on_closed()
            raise EngineUnavailable(DEATH)
        if "LATE " in line:
            return Infill(text="", finish=Finish.DEADLINE, steps=1, timings_ms={"total": 50.0, "others": 5.0})
        shaped = {one.text: one for one in map(shaper(context), texts) if one.text}
        candidates = tuple(
            Candidate(text=one.text, covered=one.covered, score=0.5 / (1 + index), source=CandidateSource.DIFFUSION)
            for index, one in enumerate(shaped.values())
        )
        best = candidates[0] if candidates else None
        return Infill(
            text=best.text if best else "",
            covered=best.covered if best else 0,
            finish=Finish.STABLE if best else Finish.EMPTY,
            score=0.5 if best else 0.0,
            steps=3,
            forwards=4,
            timings_ms={"total": 1.0},
            candidates=candidates if len(candidates) > 1 else (),
            unlikely=unlikely and best is not None,
            adapter=AdapterUse(root=context.folder, fault="it is off" if "OFF" in line else "")
            if "ADAPTER" in line
            else AdapterUse(),
        )

    async def _draft(self, text: str, line: str, on_draft: Callable[[Draft], None] | None) -> None:
        if on_draft is not None:
            spans = (DraftSpan(text=text, confidence=0.5, settled=False),)
            on_draft(Draft(request="1", step=1, text=text, spans=spans, steps_limit=4))
        self._record(f"drafted {line}")
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            self._record(f"cancelled {line}")
            raise

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        lines = {name: [line for line in query.text.split("\n") if f" {name}(" in f" {line}"] for name in query.names}
        return Definitions(texts={name: found[0] for name, found in lines.items() if found})

    async def status(self) -> Status:
        nothing: dict[str, Any] = dict.fromkeys(
            ("percent", "pid", "uptime_s", "memory_bytes", "device_memory_bytes", "denoising_steps"), 0
        )
        return Status(
            state=EngineState.READY, message="", model="large", model_path="/large", device="cpu", version="0",
            clients=1, requests={}, stages={}, **nothing,
        )  # fmt: skip

    async def close(self) -> None:
        self.closed = True
        self._ended.set()


class FakeConnector:
    """Makes `FakeEngine`s; fails the first `failures` times; loads in the steps given before it is ready."""

    def __init__(
        self,
        *,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        failures: int = 0,
        loading: tuple[int, ...] = (),
        loading_step_s: float = 0.0,
        record: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._answers = answers
        self._failures = failures
        self._loading = loading
        self._loading_step_s = loading_step_s
        self._record = record
        self.engines: list[FakeEngine] = []
        self.attempts = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, *, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> FakeEngine:
        self.attempts += 1
        self._record("connected")
        if self.attempts <= self._failures:
            raise EngineUnavailable("no engine answers; start one with: dgemma-engine start")
        engine = FakeEngine(answers=self._answers, record=self._record, on_closed=on_closed)
        self.engines.append(engine)
        if self._loading:
            on_progress(Progress(state=EngineState.LOADING, percent=self._loading[0], message="reading weights"))
            self._tasks.append(asyncio.create_task(self._load(on_progress)))
        else:
            on_progress(Progress(state=EngineState.READY, percent=100))
        return engine

    async def _load(self, on_progress: Callable[[Progress], None]) -> None:
        for percent in self._loading[1:]:
            await asyncio.sleep(self._loading_step_s)
            on_progress(Progress(state=EngineState.LOADING, percent=percent, message="reading weights"))
        await asyncio.sleep(self._loading_step_s)
        on_progress(Progress(state=EngineState.READY, percent=100))
