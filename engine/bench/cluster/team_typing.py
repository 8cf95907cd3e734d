"""People of a team who type at once: the request of each key, its time and its outcome.

The pieces that are typed and the speeds are those of `traces.jsonl`; between two pieces a person reads. A key cancels
the request before it, as the language server does.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.errors import EngineFault, EngineUnavailable
from dgemma_engine.protocol.messages import Context, Infill
from dgemma_engine.remote.remote_engine import RemoteEngine

# Most characters before and after the cursor, as the language server sends them.
_ABOVE, _BELOW = 6_000, 2_000
# Waited after a key before the engine is asked, as with a slow engine.
DEBOUNCE_S = 0.06
DEADLINE_MS = 3_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A text that a person types.

    Attributes:
        above: text before it.
        typed: the text.
        below: text after it.
        keys_per_s: how fast.
    """

    above: str
    typed: str
    below: str
    keys_per_s: float


def pieces() -> list[Piece]:
    """Returns what the traces type, each with the file around it."""
    library = Path(json.__file__).parents[1]
    found: list[Piece] = []
    for line in (record.HERE / "traces.jsonl").read_text(encoding="utf-8").splitlines():
        for window in json.loads(line)["windows"]:
            opened: tuple[str, str, str] | None = None
            for action in window["script"]:
                if action[0] == "open":
                    text, piece = (library / action[1]).read_text(encoding="utf-8"), action[2]
                    place = text.find(piece)
                    opened = (text[:place], piece, text[place + len(piece) :]) if place >= 0 else None
                elif action[0] == "type" and opened is not None and isinstance(action[1], int | float):
                    above, piece, below = opened
                    found.append(Piece(above=above[-_ABOVE:], typed=piece, below=below[:_BELOW], keys_per_s=action[1]))
                    opened = None
    return found


@dataclass
class Outcomes:
    """The outcomes of the requests.

    Attributes:
        ends: number of requests by outcome.
        times_ms: from the key to an answer, of those that ran to their end.
        num_warm: of the questions after a document's first, those that encoded less than half of their prompt.
        num_later: all of those.
        crossed: answers to another request.
    """

    ends: Counter[str] = field(default_factory=Counter[str])
    times_ms: list[float] = field(default_factory=list[float])
    num_warm: int = 0
    num_later: int = 0
    crossed: int = 0

    def summary(self) -> dict[str, Any]:
        """Returns the figures."""
        return {
            "requests": sum(self.ends.values()),
            "ends": dict(self.ends),
            "unanswered": self.ends["unanswered"],
            "crossed": self.crossed,
            "warm_share": round(self.num_warm / self.num_later, 3) if self.num_later else None,
            "p50_ms": round(statistics.median(self.times_ms), 1) if self.times_ms else None,
            "p95_ms": round(record.quantile(self.times_ms, 0.95), 1) if self.times_ms else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Milliseconds that the engine works on a request that is not cancelled.

    Attributes:
        first_ms: of the first of a piece, whose prompt is cold.
        warm_ms: of the others.
        processor_share: processor time in them; the rest waits for a core that is busy.
    """

    first_ms: list[float] = field(default_factory=list[float])
    warm_ms: list[float] = field(default_factory=list[float])
    processor_share: float = 1.0


async def costs_of(remotes: Sequence[RemoteEngine], texts: list[Piece], *, seconds: float) -> Costs:
    """Returns the cost of requests when each person waits for each answer before the next key.

    Args:
        remotes: connections of sessions, more than there are replicas, so that each replica is busy.
        texts: what is typed.
        seconds: how long.
    """
    costs, end_s = Costs(), time.monotonic() + seconds

    async def wait_for_each(person: int, remote: RemoteEngine) -> None:
        draw, number = random.Random(f"patient {person}"), 0
        while time.monotonic() < end_s:
            piece, number = draw.choice(texts), number + 1
            for length in range(len(piece.typed)):
                with suppress(EngineFault, EngineUnavailable):
                    infill = await remote.infill(question(piece, length, number))
                    if infill.prompt_tokens:
                        (costs.warm_ms if length else costs.first_ms).append(_worked_ms(infill))

    await asyncio.gather(*(wait_for_each(person, remote) for person, remote in enumerate(remotes)))
    return costs


def _worked_ms(infill: Infill) -> float:
    times_ms = infill.timings_ms
    return times_ms["total"] - times_ms["queue"] - times_ms.get("others", 0.0)


def question(piece: Piece, length: int, number: int) -> Context:
    """Returns the question after `length` characters of a piece, the person's `number`th."""
    return Context(
        document=f"file:///{number % 3}.py",
        prefix=piece.above + piece.typed[:length],
        suffix=piece.below,
        path="module.py",
        language="python",
        deadline_ms=DEADLINE_MS,
    )


async def type_for(
    remote: RemoteEngine, person: int, end_s: float, outcomes: Outcomes, *, texts: list[Piece], pause_s: float
) -> None:
    """Types pieces until `end_s`, a monotonic time.

    Args:
        remote: the person's connection.
        person: draws what is typed.
        end_s: when to end.
        outcomes: receives the outcome of each key.
        texts: to draw from.
        pause_s: mean of the pauses between pieces.
    """
    draw = random.Random(person)
    await asyncio.sleep(draw.uniform(0, pause_s))
    number = 0
    while time.monotonic() < end_s:
        piece, number = draw.choice(texts), number + 1
        asking: asyncio.Task[None] | None = None
        for length in range(len(piece.typed)):
            context = question(piece, length, number)
            if asking is not None and not asking.done():
                asking.cancel()
            asking = asyncio.create_task(_ask(remote, context, outcomes, is_first=length == 0))
            await asyncio.sleep(draw.gammavariate(4, 1 / (4 * piece.keys_per_s)))
            if time.monotonic() >= end_s:
                break
        if asking is not None:
            await asyncio.wait([asking])
        await asyncio.sleep(min(draw.expovariate(1 / pause_s), max(end_s - time.monotonic(), 0.0)))


async def _ask(remote: RemoteEngine, context: Context, outcomes: Outcomes, *, is_first: bool) -> None:
    try:
        await asyncio.sleep(DEBOUNCE_S)
    except asyncio.CancelledError:
        outcomes.ends["waited for the next key"] += 1
        raise
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(DEADLINE_MS / 1_000 + 5):
            infill = await remote.infill(context)
    except asyncio.CancelledError:
        outcomes.ends["taken back"] += 1
        raise
    except TimeoutError:
        outcomes.ends["unanswered"] += 1
        return
    except (EngineFault, EngineUnavailable) as error:
        outcomes.ends[_kind_of(error)] += 1
        return
    outcomes.ends[infill.finish.value] += 1
    outcomes.times_ms.append((time.monotonic() - began_s) * 1_000)
    _count_warm(infill, outcomes, is_first=is_first)


def _count_warm(infill: Infill, outcomes: Outcomes, *, is_first: bool) -> None:
    if not infill.prompt_tokens:
        return
    if not is_first:
        outcomes.num_later += 1
        outcomes.num_warm += 2 * infill.encoded_tokens < infill.prompt_tokens


def _kind_of(error: Exception) -> str:
    return "told to come again" if "too much to do" in str(error) else "told in the status"
