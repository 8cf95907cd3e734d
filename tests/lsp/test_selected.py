"""Answers while an entry of the completion menu is selected; `[` and `]` enclose what the entry would replace."""

from __future__ import annotations

import pytest
from lsprotocol import types

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Completion, Request, Selected, as_if_accepted, build_completions
from dgemma_lsp.server import conversions
from tests.lsp.shaped_infill import shaped_infill


def selecting(marked: str, text: str) -> Request:
    """Returns the request at `|` with an entry selected that replaces what `[` and `]` enclose."""
    start, offset, end = marked.index("["), marked.index("|") - 1, marked.index("]") - 2
    bare = marked.translate({ord(sign): None for sign in "[|]"})
    return Request(
        uri="u",
        version=1,
        text=bare,
        offset=offset,
        language="python",
        selected=Selected(start=start, end=end, text=text),
    )


def accepted(request: Request, middle: str) -> str | None:
    completions = build_completions(request, shaped_infill(request, middle))
    if not completions:
        return None
    (completion,) = completions
    return request.text[: completion.start] + completion.text + request.text[completion.end :]


@pytest.mark.parametrize(
    ("marked", "entry", "middle", "text"),
    [
        ("console[.|]\n", ".log", "(x)", "console.log(x)\n"),
        ("console.[l|]\n", "log", "(x)", "console.log(x)\n"),
        ("x = [con|]\n", "Console", "()", "x = Console()\n"),
        ("x = foo([a|])\n", "area", ", b)", "x = foo(area, b)\n"),
        ("x = [ar|ound]\n", "area", "(b)", "x = area(b)\n"),
        ("[|]\n", "import os", "\nimport sys", None),
        ("    [re|]\n", "return", " x\ny", "    return x\n"),
        ("x\n[i|]\n", "if x:\n    pass", "\nelse:", None),
        ("x = [a|]\n", "area", "", None),
    ],
)
def test_answer_extends_the_entry(marked: str, entry: str, middle: str, text: str | None) -> None:
    assert accepted(selecting(marked, entry), middle) == text


def test_engine_gets_the_text_with_the_entry() -> None:
    context = build_context(selecting("x\nfoo.[b|ar](y)\n", "baz"), ContextLimits())
    assert (context.prefix, context.suffix) == ("x\nfoo.baz", "(y)\n")


def test_span_is_that_of_the_entry() -> None:
    request = selecting("x\nfoo.[b|ar](y)\n", "baz")
    (completion,) = build_completions(request, shaped_infill(request, "_all"))
    assert completion == Completion(lead="baz", inserted="_all", start=6, cursor=7, end=9, version=1)


def test_request_without_a_selected_entry_is_unchanged() -> None:
    request = Request(uri="u", version=1, text="ab", offset=1)
    assert as_if_accepted(request) is request


@pytest.mark.parametrize(("start", "end"), [(1, 2), (4, 6), (3, 1), (3, 7)])
def test_entry_that_is_not_at_the_cursor_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="must hold the cursor on its line"):
        Request(uri="u", version=1, text="a\nbcde\nf", offset=3, selected=Selected(start=start, end=end, text="x"))


def read_selected(text: str, offset: int, start: tuple[int, int], end: tuple[int, int]) -> Selected | None:
    lines = LineIndex(text)
    info = types.SelectedCompletionInfo(
        range=types.Range(start=types.Position(*start), end=types.Position(*end)), text="a\r\nb\rc"
    )
    request = Request(uri="u", version=1, text=text, offset=offset)
    return conversions.with_selected(request, info, lines, PositionEncoding.UTF16).selected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ((1, 2), (1, 3), (3, 4)),
        ((1, 2), (1, 99), (3, 5)),
        ((1, 1), (1, 3), (2, 4)),
        ((1, 3), (1, 2), None),
        ((0, 0), (1, 3), None),
        ((1, 2), (2, 0), None),
        ((9, 0), (9, 9), None),
        ((1, 0), (1, 2), None),
    ],
    ids=["fits", "past the line", "inside a pair", "turned round", "line above", "line below", "nowhere", "left of it"],
)
def test_range_of_the_entry(start: tuple[int, int], end: tuple[int, int], expected: tuple[int, int] | None) -> None:
    selected = read_selected("a\n😋bc\nd", 4, start, end)
    assert (selected and (selected.start, selected.end)) == expected
    if selected:
        assert selected.text == "a\nb\nc"
