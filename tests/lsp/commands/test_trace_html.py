"""The page of a trace: one file, nothing of the user's text that could become markup, and less than 1 MB."""

from __future__ import annotations

import json
import random
import re
import string
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from dgemma_engine.tracing.recorder import Recorder

from dgemma_lsp.commands.trace_report import TraceView, embedded_json, to_html, trace_view
from tests.lsp.cursor import request_at
from tests.lsp.engine_process import STATUS_NOW
from tests.lsp.traces import made_trace

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>&lt;/script&gt;",
    "{{script}}{{data}}{{title}}",
    "\\u003c/script>",
    "\u2028\u2029\x00\x1f\"'`",
    "</title><img src=x onerror=alert(1)>",
]


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.data: dict[str, str] = {}
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        self._open = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.data[self._open] = self.data.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def page_of(around: str, **options: Any) -> str:
    return to_html(trace_view(request_at(f"{around}|{around}"), 1, 1, made_trace(**options), STATUS_NOW))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_cannot_leave_the_data(hostile: str) -> None:
    plain, page = Elements(page_of("x")), Elements(page_of(hostile, text=hostile, token=hostile))
    assert page.names == plain.names
    data = json.loads(page.data["data"])
    assert hostile in data["tokens"]
    assert data["candidates"][0]["text"] == hostile
    assert page.data["script"] == plain.data["script"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_title_is_text(hostile: str) -> None:
    page = Elements(to_html(TraceView(title=hostile, data={})))
    assert page.names == Elements(to_html(TraceView(title="x", data={}))).names
    assert page.data["title"] == hostile


@pytest.mark.parametrize("hostile", HOSTILE)
def test_embedded_json_is_the_same_value(hostile: str) -> None:
    written = embedded_json({hostile: [hostile, 1.5, None, True]})
    assert json.loads(written) == {hostile: [hostile, 1.5, None, True]}
    assert not set("<>&\u2028\u2029") & set(written)


def test_page_loads_nothing() -> None:
    page = page_of("x")
    elements = Elements(page)
    assert not {"img", "iframe", "object", "embed"} & set(elements.names)
    assert [value for name, value in elements.attributes if name in {"src", "href"}] == ["data:,"]
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", page)


def test_largest_recording_stays_under_a_megabyte() -> None:
    """As many positions as a recorder keeps, each with tokens of its own as long as tokens are."""
    most = Recorder(lambda: 0.0)._left
    trace = made_trace(num_free=100, num_steps=2)
    [canvas] = trace.canvases
    dice = random.Random(0)
    rows = [canvas.steps[1].rows[0]] * (most // 100)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(dice.randrange(100_000, 262_144) for _ in range(count))

    rows = [
        replace(
            row,
            seen_ids=ids(100),
            best_ids=ids(100),
            entropy=tuple(dice.random() for _ in range(100)),
            other_ids=tuple(ids(4) for _ in range(100)),
            other_probabilities=((0.41, 0.222, 0.111, 0.101),) * 100,
            accepted=(1,) * 100,
            next_ids=ids(100),
        )
        for row in rows
    ]
    known = {token_id for row in rows for token_id in (*row.seen_ids, *row.best_ids, *row.next_ids)}
    known |= {token_id for row in rows for others in row.other_ids for token_id in others}
    tokens = trace.tokens | {str(token_id): "".join(dice.choices(string.ascii_letters, k=5)) for token_id in known}
    steps = tuple(replace(canvas.steps[1], rows=(row,)) for row in rows)
    trace = replace(trace, canvases=(replace(canvas, steps=steps),), tokens=tokens)
    page = to_html(trace_view(request_at("x = |"), 1, 5, trace, STATUS_NOW))
    assert 500_000 < len(page.encode()) < 1_000_000
