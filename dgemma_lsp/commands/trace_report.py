"""A recorded request and its file -> the page of `dgemma-lsp trace`, one HTML file that loads nothing else.

Keeps a screenful of text around the cursor, rounds numbers to what can be seen, and names keys as
`trace_page/trace.js` reads them. The user's text reaches the page as JSON only, and no character of it can end the
element that holds it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.protocol.messages import Infill
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.protocol.trace_messages import CanvasTrace, PassTrace, RowStep, Trace, WritingTrace

from dgemma_lsp.request import Request

_LINES_BEFORE = 8
_LINES_AFTER = 4
_MOST_LINE_CHARS = 400
_MOST_CANDIDATES = 12
_MOST_TEXT_CHARS = 4_000
_SLOT = re.compile(r"\{\{(title|style|script|data)\}\}")
# What could end a script element, begin a comment in it, or break a line of JavaScript.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceView:
    """The content of a page.

    Attributes:
        title: file, line and column.
        data: JSON-ready.
    """

    title: str
    data: dict[str, Any]


def trace_view(request: Request, line: int, column: int, trace: Trace, status: Status) -> TraceView:
    """Returns what the page shows.

    Args:
        request: what was asked.
        line: of the cursor, 1-based.
        column: of the cursor, 1-based, in code points.
        trace: what the engine did.
        status: of the engine.
    """
    infill = trace.infill
    numbers = {int(token_id): number for number, token_id in enumerate((*trace.marks, *trace.tokens))}
    before, after = (
        normalize_newlines(request.text[: request.offset]),
        normalize_newlines(request.text[request.offset :]),
    )
    shown_before = [_short_end(text) for text in before.split("\n")[-_LINES_BEFORE - 1 :]]
    shown_after = [text[:_MOST_LINE_CHARS] for text in after.split("\n")[: _LINES_AFTER + 1]]
    if shown_after[-1:] == [""] and len(shown_after) > 1:
        # A line end at the end of the text begins no further line.
        shown_after.pop()
    return TraceView(
        title=f"{request.path}:{line}:{column}",
        data={
            "place": {"file": request.path, "line": line, "column": column},
            "model": {
                "description": "by the model in the package" if status.model == TINY else f"by {status.model}",
                "device": "the processor" if status.device == "cpu" else status.device,
                "version": status.version,
            },
            "source": {
                "before": "\n".join(shown_before),
                "after": "\n".join(shown_after),
                "first_line": line - len(shown_before) + 1,
            },
            "outcome": {
                "text": infill.text,
                "covered": infill.covered,
                "finish": infill.finish.value,
                "score": round(infill.score, 4),
                "steps": infill.steps,
                "forwards": infill.forwards,
            },
            "timings": _timings(infill),
            "threshold": round(trace.threshold, 4),
            "is_calibrated": trace.is_calibrated,
            "num_prompt": trace.num_prompt,
            "num_left_out": trace.num_left_out,
            # Renumbered from 0 for this page, tokens without a text first: ids of a large vocabulary are long.
            "tokens": [*trace.marks.values(), *trace.tokens.values()],
            "num_marks": len(trace.marks),
            "canvases": [_canvas(canvas, numbers) for canvas in trace.canvases],
            "writings": [_writing(writing, numbers) for writing in trace.writings],
            "candidates": [
                {
                    "text": candidate.text[:_MOST_TEXT_CHARS],
                    "source": candidate.source.value,
                    "score": round(candidate.score, 4),
                    "verdict": candidate.verdict.value,
                    "features": {name: round(value, 3) for name, value in candidate.features.items()},
                }
                for candidate in trace.candidates[:_MOST_CANDIDATES]
            ],
        },
    )


def to_html(view: TraceView) -> str:
    """Returns the page.

    Args:
        view: what it shows.
    """
    folder = files("dgemma_lsp.commands") / "trace_page"
    parts = {
        "title": html.escape(view.title),
        "style": (folder / "trace.css").read_text(encoding="utf-8").rstrip(),
        "script": (folder / "trace.js").read_text(encoding="utf-8").rstrip(),
        "data": embedded_json(view.data),
    }
    # In one pass: what is put in is not searched again.
    return _SLOT.sub(lambda slot: parts[slot.group(1)], (folder / "trace.html").read_text(encoding="utf-8"))


def embedded_json(value: Any) -> str:
    """Returns JSON that may stand inside a `script` element, whatever its strings hold."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_UNSAFE)


def _timings(infill: Infill) -> dict[str, float]:
    return {stage: round(spent, 3) for stage, spent in infill.timings_ms.items()}


def _canvas(canvas: CanvasTrace, numbers: Mapping[int, int]) -> dict[str, Any]:
    corrections = [_Corrections() for _ in canvas.rows]
    return {
        "num_written": len(canvas.written_ids),
        "steps_limit": canvas.steps_limit,
        "rows": [
            {
                "kind": row.kind.value,
                "num_free": row.num_free,
                "opening": [numbers[token_id] for token_id in row.opening_ids],
                "head": [numbers[token_id] for token_id in row.head_ids],
                "seed": row.seed[:_MOST_LINE_CHARS],
            }
            for row in canvas.rows
        ],
        "steps": [
            {
                "temperature": round(step.temperature, 3),
                "ms": round(step.elapsed_ms, 3),
                "rows": [_row(row, numbers, corrections[row.row].after(row)) for row in step.rows],
            }
            for step in canvas.steps
        ],
    }


class _Corrections:
    """The tokens of a row that were accepted at one step and became noise again at a later one."""

    def __init__(self) -> None:
        self._kept, self._lost = dict[int, int](), dict[int, int]()

    def after(self, row: RowStep) -> dict[int, int]:
        """Returns, by position, the tokens that became noise before this step and are read as another one in it."""
        corrected = {at: lost for at, lost in self._lost.items() if row.best_ids[at] != lost}
        for at, is_kept in enumerate(row.accepted):
            if is_kept:
                self._kept[at] = row.next_ids[at]
            elif at in self._kept:
                self._lost[at] = self._kept.pop(at)
        return corrected


def _row(row: RowStep, numbers: Mapping[int, int], corrected: Mapping[int, int]) -> dict[str, Any]:
    return {
        "row": row.row,
        "seen": [numbers[token_id] for token_id in row.seen_ids],
        "best": [numbers[token_id] for token_id in row.best_ids],
        "entropy": [round(nats, 3) for nats in row.entropy],
        "others": _others(row, numbers),
        "accepted": list(row.accepted),
        "next": [numbers[token_id] for token_id in row.next_ids],
        "corrected": {at: numbers[token_id] for at, token_id in corrected.items()},
        "settled": row.settled,
        "text": row.text[:_MOST_TEXT_CHARS],
        "logprob": round(row.mean_logprob, 4),
    }


def _writing(writing: WritingTrace, numbers: Mapping[int, int]) -> dict[str, Any]:
    return {
        "forced": [numbers[token_id] for token_id in writing.forced_ids],
        "num_drafted": len(writing.draft_ids),
        "text": writing.text[:_MOST_TEXT_CHARS],
        "passes": [
            {
                "ms": round(one.elapsed_ms, 3),
                "tokens": [numbers[token_id] for token_id in one.ids],
                "entropy": [round(nats, 3) for nats in one.entropy],
                "others": _others(one, numbers),
                "num_agreed": one.num_agreed,
                "draft": numbers[one.draft_id] if one.draft_id >= 0 else None,
                "ended": one.ended,
            }
            for one in writing.passes
        ],
    }


def _others(of: RowStep | PassTrace, numbers: Mapping[int, int]) -> list[list[list[float]]]:
    return [
        [[numbers[token_id], round(share, 3)] for token_id, share in zip(ids, shares, strict=True) if share >= 0.0005]
        for ids, shares in zip(of.other_ids, of.other_probabilities, strict=True)
    ]


def _short_end(text: str) -> str:
    """Returns the end of a line: the cursor stands there."""
    return text if len(text) <= _MOST_LINE_CHARS else f"…{text[-_MOST_LINE_CHARS:]}"
