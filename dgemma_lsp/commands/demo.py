"""Completions at eight kinds of places in real Python files, with the truth beside each, and figures at the end.

The files are the repository's own, where it is run from the repository, and the standard library's.
"""

from __future__ import annotations

import ast
import json
import math
import statistics
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from dgemma_engine.protocol.status_messages import Status

from dgemma_lsp.commands.complete import Answer, answer_at, render
from dgemma_lsp.commands.demo_holes import DemoHole, find_holes
from dgemma_lsp.context.builder import ContextLimits
from dgemma_lsp.engine_client.connection import InfillSource

_STDLIB_MODULES = (
    "textwrap.py",
    "heapq.py",
    "calendar.py",
    "fractions.py",
    "statistics.py",
    "configparser.py",
    "shlex.py",
    "string.py",
    "posixpath.py",
    "json/encoder.py",
    "argparse.py",
    "dataclasses.py",
    "difflib.py",
    "tarfile.py",
    "random.py",
)
_OWN_FILES = (
    "dgemma_lsp/documents/positions.py",
    "dgemma_lsp/documents/store.py",
    "tests/lsp/documents/test_positions.py",
    "engine/dgemma_engine/protocol/messages.py",
)


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
    """Completes each hole and writes it; the last line is one JSON object.

    Args:
        source: the engine, ready.
        status: what it said of itself.
        limits: how much text to send, how much to ask for, the seed.
        deadline_ms: milliseconds until each answer is due.
        clock: seconds that never go backwards.
        write: takes one line or more.
        colour: whether to dim the surroundings with ANSI codes.
    """
    holes = find_holes(read_sources())
    times_ms: list[float] = []
    num_shown = num_right = 0
    for number, hole in enumerate(holes, start=1):
        answer = await answer_at(hole.place, source, limits=limits, deadline_ms=deadline_ms, clock=clock)
        times_ms.append(answer.wall_ms)
        num_shown += answer.completion is not None
        num_right += is_right(answer, hole.truth)
        write(_headline(number, len(holes), hole))
        write(render(answer, colour=colour).rstrip("\n"))
        write(f"[it was: {hole.truth.strip()!r}]\n")
    figures = {
        "completions": len(holes),
        "shown": num_shown,
        "right": num_right,
        "median_ms": round(statistics.median(times_ms), 1) if times_ms else None,
        "p95_ms": round(percentile(times_ms, 95), 1) if times_ms else None,
        "model": status.model,
        "device": status.device,
    }
    write(json.dumps(figures))


def is_right(answer: Answer, truth: str) -> bool:
    """Returns whether accepting an answer restores the text that was taken out, blanks at line ends aside."""
    text, offset = answer.request.text, answer.request.offset
    whole = text[:offset] + truth + text[offset:]
    return answer.completion is not None and _without_trailing_blanks(answer.document) == _without_trailing_blanks(
        whole
    )


def _without_trailing_blanks(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n")]


def read_sources() -> dict[Path, str]:
    """Returns the texts to take holes from: the standard library's and, where they are, the repository's."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    repository = Path(__file__).parents[2]
    paths = [stdlib / name for name in _STDLIB_MODULES]
    if (repository / "pyproject.toml").is_file():
        # Two of our own early on, so that both origins are seen.
        paths[2:2] = [repository / name for name in _OWN_FILES]
    return {path: text for path in paths if (text := _read_python(path)) is not None}


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest of `values` that at least `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _headline(number: int, total: int, hole: DemoHole) -> str:
    place = hole.place
    line = place.text.count("\n", 0, place.offset) + 1
    column = place.offset - (place.text.rfind("\n", 0, place.offset) + 1) + 1
    note = f"; {hole.note}" if hole.note else ""
    return f"--- {number}/{total} {hole.kind}: {place.path}:{line}:{column}, the text at the cursor taken out{note}"


def _read_python(path: Path) -> str | None:
    """Returns a file's text with `\\n` line ends, or None where it is missing or not this Python's syntax."""
    try:
        text = path.read_text(encoding="utf-8")
        ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError):
        return None
    return text
