"""Whether answers come when they are due, and how soon a cancelled request ends: the engine in its own process.

The client sends what the language server would, at random places of a file of the standard library.

Deadlines: 500 questions of 20 to 500 ms, one at a time after a short pause, a tenth of them in pairs from two documents
at once. Times are the asking side's: from before the question is sent to after the answer is read. An answer is on time
if it comes before its deadline plus one denoising step; a step's time is the 95th percentile, over the answers with
steps, of the `denoise` stage divided by the steps, so passes of that stage that are no steps count towards it.

Cancellations: 200 questions cancelled at a random moment of their work. The engine's count of finished denoising steps
is requested right before and right after the cancellation on the same connection, which the engine reads in order, and
again when it is idle. The further steps are the difference to the first count; the step under way is one of them. Where
the two counts differ, a step ended between them, and the difference to the first is one too many.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.messages import Context, Infill
from dgemma_engine.protocol.status_messages import EngineState

from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Request, Trigger

SEED = 7
FILE = "argparse.py"
DEADLINES_MS = (20.0, 500.0)
PAUSES_S = (0.0, 0.02)
PAIR_EVERY = 20  # Questions: one pair is a tenth of them.
# Longer than any answer takes: a cancelled request must not have been about to end by itself.
LONG_MS = 60_000.0
LOAD_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestion:
    """One question and its answer."""

    deadline_ms: float
    wall_ms: float
    paired: bool
    infill: Infill

    @property
    def lateness_ms(self) -> float:
        """Milliseconds after the deadline; negative before it."""
        return self.wall_ms - self.deadline_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """One question that was cancelled while the engine worked on it."""

    further_steps: int
    exact: bool
    idle_ms: float


class Questions:
    """Random places of one file, seeded, with documents that take turns."""

    def __init__(self, text: str, random: Random) -> None:
        self._text = text
        self._random = random
        self._starts = [offset for offset, char in enumerate(text) if not char.isspace()]

    def next(self, document: str, deadline_ms: float) -> Context:
        """Returns a question at the next random place."""
        request = Request(
            uri=f"file:///bench/{document}",
            version=0,
            text=self._text,
            offset=self._random.choice(self._starts),
            path=document,
            language="python",
            trigger=Trigger.AUTOMATIC,
            deadline_ms=deadline_ms,
        )
        return build_context(request, ContextLimits())

    def uniform(self, bounds: tuple[float, float]) -> float:
        """Returns a random number between two others."""
        return self._random.uniform(*bounds)


async def ask_on_time(client: EngineClient, questions: Questions, count: int) -> list[AskedQuestion]:
    """Asks `count` questions with random deadlines."""

    async def ask(document: str, *, paired: bool) -> AskedQuestion:
        deadline_ms = questions.uniform(DEADLINES_MS)
        context = questions.next(document, deadline_ms)
        started_s = time.perf_counter()
        infill = await client.infill(context)
        wall_ms = (time.perf_counter() - started_s) * 1e3
        return AskedQuestion(deadline_ms=deadline_ms, wall_ms=wall_ms, paired=paired, infill=infill)

    asked: list[AskedQuestion] = []
    while len(asked) < count:
        if len(asked) % PAIR_EVERY == 0:
            asked += await asyncio.gather(ask("one.py", paired=True), ask("other.py", paired=True))
        else:
            asked.append(await ask("one.py", paired=False))
        await asyncio.sleep(questions.uniform(PAUSES_S))
    return asked


async def typical_ms(client: EngineClient, questions: Questions) -> float:
    """Returns how long a question takes that is not cancelled."""
    times_ms: list[float] = []
    for _ in range(10):
        started_s = time.perf_counter()
        await client.infill(questions.next("cancelled.py", LONG_MS))
        times_ms.append((time.perf_counter() - started_s) * 1e3)
    return statistics.median(times_ms)


async def cancel(client: EngineClient, context: Context, after_s: float) -> Cancelled | None:
    """Asks, and cancels after a while; None if the engine had answered by then."""
    num_cancelled = (await client.status()).requests["cancelled"]
    pending = asyncio.create_task(client.infill(context))
    await asyncio.sleep(after_s)
    if pending.done():
        return None
    # Three messages in one turn of the event loop: they leave in this order.
    before = asyncio.create_task(client.status())
    pending.cancel()
    after = asyncio.create_task(client.status())
    started_s = time.perf_counter()
    status = await after
    while status.state is EngineState.BUSY:
        await asyncio.sleep(0.001)
        status = await client.status()
    idle_ms = (time.perf_counter() - started_s) * 1e3
    await asyncio.wait([pending])
    if status.requests["cancelled"] == num_cancelled:
        return None
    return Cancelled(
        further_steps=status.denoising_steps - (await before).denoising_steps,
        exact=(await before).denoising_steps == (await after).denoising_steps,
        idle_ms=idle_ms,
    )


async def ask_and_cancel(client: EngineClient, questions: Questions, count: int) -> tuple[list[Cancelled], float]:
    """Cancels `count` questions; returns them, and how long one takes that is not cancelled."""
    usual_ms = await typical_ms(client, questions)
    cancelled: list[Cancelled] = []
    for _ in range(4 * count):
        context = questions.next("cancelled.py", LONG_MS)
        taken_back = await cancel(client, context, questions.uniform((0.0, usual_ms / 1e3)))
        cancelled += [taken_back] if taken_back else []
        if len(cancelled) == count:
            break
    return cancelled, usual_ms


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Starts an engine, asks, and returns the result."""
    text = (Path(sysconfig.get_path("stdlib")) / FILE).read_text(encoding="utf-8")
    questions = Questions(text, Random(SEED))
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime:
        location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": runtime}, model=args.model)
        async with await EngineClient.attach_or_start(location) as client:
            try:
                status = await client.wait_ready(LOAD_PATIENCE_S)
                asked = await ask_on_time(client, questions, args.questions)
                cancelled, usual_ms = await ask_and_cancel(client, questions, args.cancellations)
            finally:
                await client.stop_engine()
        await asyncio.sleep(0.5)
    conditions = {
        "model": status.model,
        "device": status.device,
        "file": FILE,
        "seed": SEED,
        "deadlines_ms": list(DEADLINES_MS),
    }
    return conditions | deadline_figures(asked) | cancellation_figures(cancelled, usual_ms)


def deadline_figures(asked: Sequence[AskedQuestion]) -> dict[str, Any]:
    """Returns the figures of the questions with deadlines."""
    steps_ms = [one.infill.timings_ms["denoise"] / one.infill.steps for one in asked if one.infill.steps]
    step_ms = record.quantile(steps_ms, 0.95)
    lateness_ms = [one.lateness_ms for one in asked]
    return {
        "questions": len(asked),
        "in_pairs": sum(one.paired for one in asked),
        "finishes": Counter(one.infill.finish.value for one in asked),
        "shown_share": share(bool(one.infill.text) for one in asked),
        "step_p50_ms": round(statistics.median(steps_ms), 2),
        "step_p95_ms": round(step_ms, 2),
        "on_time_share": share(late_ms <= step_ms for late_ms in lateness_ms),
        "on_time_share_in_pairs": share(one.lateness_ms <= step_ms for one in asked if one.paired),
        "before_deadline_share": share(late_ms <= 0 for late_ms in lateness_ms),
        "lateness_p50_ms": round(statistics.median(lateness_ms), 2),
        "lateness_p95_ms": round(record.quantile(lateness_ms, 0.95), 2),
        "lateness_max_ms": round(max(lateness_ms), 2),
    }


def cancellation_figures(cancelled: Sequence[Cancelled], usual_ms: float) -> dict[str, Any]:
    """Returns the figures of the cancelled questions."""
    return {
        "cancellations": len(cancelled),
        "uncancelled_median_ms": round(usual_ms, 2),
        "further_steps": {
            str(steps): n for steps, n in sorted(Counter(one.further_steps for one in cancelled).items())
        },
        "further_steps_max": max(one.further_steps for one in cancelled),
        "further_steps_max_exact": max(one.further_steps for one in cancelled if one.exact),
        "counts_that_differ": sum(not one.exact for one in cancelled),
        "target_further_steps_max": 1,
        "idle_after_p50_ms": round(statistics.median(one.idle_ms for one in cancelled), 2),
        "idle_after_p95_ms": round(record.quantile([one.idle_ms for one in cancelled], 0.95), 2),
        "idle_after_max_ms": round(max(one.idle_ms for one in cancelled), 2),
    }


def share(marks: Iterable[bool]) -> float:
    """Returns the share of marks that are set."""
    return round(statistics.mean(map(float, marks)), 4)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--cancellations", type=int, default=200)
    parser.add_argument("--model", default=TINY, help="model folder, or `tiny`")
    args = parser.parse_args()
    record.write("on_time", asyncio.run(measure(args)), args.out)


if __name__ == "__main__":
    main()
