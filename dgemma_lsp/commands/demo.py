"""Completions at eight places of four small files that the package ships, with the truth beside each, and figures.

`demo_files/places.json` names the places: what stands before the cursor, and what was taken out after it. They were
chosen before any model was tried on them, and are not changed for one.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.engine_client.infill_source import InfillSource
from dgemma_engine.protocol.status_messages import Status

from dgemma_lsp.commands.complete import Answer, answer_at, render
from dgemma_lsp.commands.file_location import FilePosition
from dgemma_lsp.engine_client.infill_client import ContextLimits
from dgemma_lsp.request import Trigger

FILES = Path(__file__).with_name("demo_files")
_NEXT = "Next: dgemma-lsp complete FILE:LINE:COLUMN on a file of yours, make install-vscode, or make install-neovim"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlace:
    """One cursor position.

    Attributes:
        kind: what is completed there, for a person.
        place: file, text without the truth, and the cursor.
        truth: what stood at the cursor.
    """

    kind: str
    place: FilePosition
    truth: str


async def run_demo(
    source: InfillSource,
    status: Status,
    *,
    limits: ContextLimits,
    deadline_ms: float,
    clock: Callable[[], float],
    write: Callable[[str], None],
    colour: bool,
) -> None:
    """Completes each place as while typing and writes it; the last line is one JSON object.

    Args:
        source: the engine, ready.
        status: its status.
        limits: how much text to send, how much to ask for, the seed.
        deadline_ms: milliseconds until each answer is due.
        clock: seconds that never go backwards.
        write: takes one line or more.
        colour: whether to dim the surroundings with ANSI codes.
    """
    places = read_places()
    times_ms: list[float] = []
    num_shown = num_right = 0
    for number, one in enumerate(places, start=1):
        answer = await answer_at(
            one.place, source, trigger=Trigger.AUTOMATIC, limits=limits, deadline_ms=deadline_ms, clock=clock
        )
        times_ms.append(answer.wall_ms)
        num_shown += answer.completion is not None
        num_right += is_right(answer, one.truth)
        write(_headline(number, len(places), one))
        write(render(answer, colour=colour).rstrip("\n"))
        write(f"[it was: {one.truth!r}]\n")
    write(_NEXT)
    figures = {
        "completions": len(places),
        "shown": num_shown,
        "right": num_right,
        "median_ms": round(statistics.median(times_ms), 1),
        "p95_ms": round(percentile(times_ms, 95), 1),
        "model": status.model,
        "device": status.device,
    }
    write(json.dumps(figures))


def read_places() -> list[DemoPlace]:
    """Returns the places, in order."""
    places: list[DemoPlace] = []
    for place in json.loads((FILES / "places.json").read_text(encoding="utf-8")):
        path = FILES / place["file"]
        text = path.read_text(encoding="utf-8")
        offset = text.index(place["before"] + place["truth"]) + len(place["before"])
        text = text[:offset] + text[offset + len(place["truth"]) :]
        position = FilePosition(path=path, text=text, offset=offset)
        places.append(DemoPlace(kind=place["kind"], place=position, truth=place["truth"]))
    return places


def is_right(answer: Answer, truth: str) -> bool:
    """Returns whether accepting an answer restores the text that was taken out, blanks at line ends aside."""
    text, offset = answer.request.text, answer.request.offset
    whole = text[:offset] + truth + text[offset:]
    return answer.completion is not None and _stripped(answer.document) == _stripped(whole)


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest of `values` that at least `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n")]


def _headline(number: int, total: int, one: DemoPlace) -> str:
    place = one.place
    line = place.text.count("\n", 0, place.offset) + 1
    column = place.offset - (place.text.rfind("\n", 0, place.offset) + 1) + 1
    return f"--- {number}/{total} {one.kind}: {place.path.name}:{line}:{column}, the text at the cursor taken out"
