"""What is offered for a hole: shape, line ends, and that nothing around the hole ever changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dgemma_engine.protocol.messages import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import Document
from dgemma_lsp.fill.candidates import FillCandidate, fill_candidates, fill_request
from dgemma_lsp.fill.target import FillKind, FillTarget, fill_target
from dgemma_lsp.request import Channel
from tests.lsp.shaped_infill import shaped_infill


def offered(
    text: str, start: int, end: int, answers: list[str], kind: FillKind = FillKind.SELECTION, language: str = "python"
) -> tuple[FillTarget, tuple[FillCandidate, ...]]:
    target = fill_target(text, start, end, kind=kind, language_id=language)
    assert isinstance(target, FillTarget)
    document = Document(uri="file:///w/a", version=1, language=language, text=text)
    request = fill_request(document, target, path="a", deadline_ms=1_000.0)
    return target, fill_candidates(request, target, text[target.start : target.end], shaped_infill(request, *answers))


def filled(marked: str, *answers: str, kind: FillKind = FillKind.SELECTION, language: str = "python") -> list[str]:
    """Returns what the text becomes with each candidate."""
    first, last = marked.index("|"), marked.rindex("|")
    text = marked.replace("|", "")
    target, candidates = offered(text, first, max(first, last - 1), list(answers), kind, language)
    return [text[: target.start] + one.new_text + text[target.end :] for one in candidates]


@pytest.mark.parametrize(
    ("marked", "answer", "expected"),
    [
        ("a = |b|\n", "c", "a = c\n"),
        ("a = |b| + c\n", "d + c", "a = d + c\n"),
        ("f(|a|)\n", "b, c)", "f(b, c)\n"),
        ("f(|a|)\n", "b, c", "f(b, c)\n"),
        ("f(|a|, b)\n", "(x, y)", "f((x, y), b)\n"),
        ("def f():\n|    pass\n|\nx\n", "a = 1\n\n    return a", "def f():\n    a = 1\n\n    return a\n\nx\n"),
        ("def f():\n\t|pass|\n", "if a:\n        return a", "def f():\n\tif a:\n\t\treturn a\n"),
        ("def f():\n|    pass\n|\nx\n", "return a\n\n\ndef g():\n    pass", "def f():\n    return a\n\nx\n"),
        ("def f():\n|    pass\n|    return a\n", "a = 1\n    return a", "def f():\n    a = 1\n    return a\n"),
        ("x = |[\n    1,\n]|\n", "[\n    2,\n]", "x = [\n    2,\n]\n"),
        ("x = |1|\n", "(a", "x = (a)\n"),
        ("|def f():\n    pass|\n", "def f():\n    return 1\n", "def f():\n    return 1\n"),
    ],
)
def test_answer_is_fitted_into_the_hole(marked: str, answer: str, expected: str) -> None:
    assert filled(marked, answer) == [expected]


OUTWARD = [
    # A selection from inside one function to the end of the next may become two functions.
    (
        "class A:\n    def f(self):\n        |return 1\n\n    def g(self):\n        return 2|\n",
        "return 3\n\n    def g(self):\n        return 4\n\nx = 5",
        "class A:\n    def f(self):\n        return 3\n\n    def g(self):\n        return 4\n",
        "python",
    ),
    (
        "def f():\n    |return 1\n\n\nx = 2|\ny = 3\n",
        "return 4\n\n\nx = 5",
        "def f():\n    return 4\n\n\nx = 5\ny = 3\n",
        "python",
    ),
    (
        "def f():\n|    return 1\n\n\nx = 2\n|y = 3\n",
        "return 4\n\n\nx = 5",
        "def f():\n    return 4\n\n\nx = 5\ny = 3\n",
        "python",
    ),
    (
        "if a:\r\n\t|b()\r\nelse:\r\n\tc()|\r\nd\r\n",
        "e()\nelse:\n\tf()\ng()",
        "if a:\r\n\te()\r\nelse:\r\n\tf()\r\ng()\r\nd\r\n",
        "python",
    ),
    (
        "x = |1\ny = 2|\n",
        "3\ny = 4",
        "x = 3\ny = 4\n",
        "python",
    ),
    (
        "switch (a) {\n    case 1:\n        |b();\n    case 2:\n        c();|\n}\n",
        "d();\n    case 2:\n        e();\nf();",
        "switch (a) {\n    case 1:\n        d();\n    case 2:\n        e();\n}\n",
        "javascript",
    ),
    (
        "function f() {\n    |a();\n}\n\nb();|\n",
        "c();\n}\n\nd();",
        "function f() {\n    c();\n}\n\nd();\n",
        "javascript",
    ),
    (
        "a:\n  b:\n    |c: 1\n  d: 2|\ne: 3\n",
        "c: 4\n  d: 5\nf: 6",
        "a:\n  b:\n    c: 4\n  d: 5\ne: 3\n",
        "yaml",
    ),
    # Text with a smaller indentation that is still part of the block does not widen the selection.
    (
        "def f():\n    |a = 1\n# b = 2\n    return a|\n",
        "return 3\n\n\nx = 4",
        "def f():\n    return 3\n",
        "python",
    ),
    (
        'def f():\n    |return """\na\n"""|\n',
        "return 3\n\n\nx = 4",
        "def f():\n    return 3\n",
        "python",
    ),
    (
        "void f() {\n    |a();\n#if B\n    b();\n#endif|\n}\n",
        "c();\nint x;",
        "void f() {\n    c();\n}\n",
        "c",
    ),
    (
        "function f() {\n    |a();\n}|\n",
        "b();\n}\n\nc();",
        "function f() {\n    b();\n}\n",
        "javascript",
    ),
]


@pytest.mark.parametrize(("marked", "answer", "expected", "language"), OUTWARD)
def test_a_selection_that_ends_further_out_may_leave_its_block(
    marked: str, answer: str, expected: str, language: str
) -> None:
    assert filled(marked, answer, language=language) == [expected]


def test_line_ends_are_the_documents() -> None:
    assert filled("def f():\r\n|    pass\r\n|x\r\n", "a\n    b") == ["def f():\r\n    a\r\n    b\r\nx\r\n"]
    assert filled("|pass|\r\nx\r\n", "a\nb") == ["a\r\nb\r\nx\r\n"]
    assert filled("x\r|pass|\r", "a\nb") == ["x\ra\rb\r"]
    assert filled("|x\r\ny|", "a\nb") == ["a\r\nb"]


def test_description_alone_is_followed_by_a_line_of_its_own() -> None:
    marked = "if a:\r\n|    # sort them|\r\n    b\r\n"
    assert filled(marked, "c()", kind=FillKind.DESCRIPTION) == ["if a:\r\n    # sort them\r\n    c()\r\n    b\r\n"]


def test_todo_is_replaced_by_what_it_asks_for() -> None:
    marked = "def f(x):\n    # TODO: so|rt them\n    pass\n"
    assert filled(marked, "x.sort()", kind=FillKind.PLACEHOLDER) == ["def f(x):\n    x.sort()\n"]


def test_body_on_the_line_of_its_opener() -> None:
    assert filled("def f(): ..|.\n", "\n    return 1", kind=FillKind.PLACEHOLDER) == ["def f():\n    return 1\n"]


def test_candidates_are_distinct_change_something_and_are_at_most_five() -> None:
    assert filled("x = |1|\n", "2", "2 ", "1", "", "3") == ["x = 2\n", "x = 3\n"]
    assert len(filled("x = |1|\n", *"abcdefgh")) == 5
    assert filled("x = |1|\n", "1") == []
    assert filled("x = |1|\n", " ") == []


def test_a_mere_comment_is_offered_for_a_comment_only() -> None:
    assert filled("x\n|y = 1|\n", "# sorts", "z = 1") == ["x\nz = 1\n"]
    assert filled("x\n|# TODO|\n", "# sorts") == ["x\n# sorts\n"]
    assert filled("x\n|y = 1|\n", "# sorts\nz = 1") == ["x\n# sorts\nz = 1\n"]


def test_a_block_without_a_body_is_not_offered() -> None:
    assert filled("def f():\n    |pass|\n\nx\n", "if a:", "return") == ["def f():\n    return\n\nx\n"]
    assert filled("|if a:|\n    b\n", "if c:") == ["if c:\n    b\n"]
    assert filled("x = |a|\n", "{1:\n2}") != []


def test_labels_name_the_first_line_and_how_many_follow() -> None:
    text = "def f():\n    pass\n"
    _, (long, short) = offered(text, 13, 17, ["x" * 80 + "\n\n    b\n    c", "return"])
    assert long.label == "x" * 59 + "\N{HORIZONTAL ELLIPSIS} (+2 lines)"
    assert short.label == "return"
    assert long.score > short.score


def test_extent_and_key() -> None:
    def extent(marked: str) -> Extent | None:
        first, last = marked.index("|"), marked.rindex("|") - 1
        text = marked.replace("|", "")
        target = fill_target(text, first, last, kind=FillKind.SELECTION, language_id="python")
        assert isinstance(target, FillTarget)
        document = Document(uri="file:///w/a", version=1, language="python", text=text)
        return fill_request(document, target, path="a", deadline_ms=1.0).extent

    document = Document(uri="file:///w/a", version=1, language="python", text="a")
    request = fill_request(document, FillTarget(start=0, end=1), path="a", deadline_ms=1.0)
    assert request.key not in {document.uri, replace(request, channel=Channel.MENU).key}, "ghost text goes on beside it"
    assert extent("f(|a|)\n") is Extent.LINE
    assert extent("f(|a,\n  b|)\n") is Extent.BLOCK
    assert extent("|    x\n|") is Extent.BLOCK


PIECES = st.sampled_from(
    ["a", "(", ")", "{", "}", '"', "'", "#", ":", " ", "    ", "\t", "\n", "\n    ", "def f():", "# todo", '"""', "😋",
     "e\u0301", "\u2028", "\x0c", "pass", "x = 1", ",", "\r"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=25).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    text=TEXTS,
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.tuples(st.integers(0, 80), st.integers(0, 80)),
    answers=st.lists(TEXTS, max_size=4),
    kind=st.sampled_from(FillKind),
    encoding=st.sampled_from(PositionEncoding),
    language=st.sampled_from(["python", "javascript", "markdown", "lua"]),
)
def test_nothing_outside_the_range_changes(
    text: str,
    line_end: str,
    cuts: tuple[int, int],
    answers: list[str],
    kind: FillKind,
    encoding: PositionEncoding,
    language: str,
) -> None:
    text = text.replace("\r", "").replace("\n", line_end)
    document = Document(uri="file:///w/a", version=1, language=language, text=text)
    # Positions come from an editor, which never stands between the two halves of a line end.
    places = [document.lines.position(min(cut, len(text)), encoding) for cut in cuts]
    start, end = sorted(document.lines.offset(*place, encoding) for place in places)
    target = fill_target(text, start, end, kind=kind, language_id=language)
    if not isinstance(target, FillTarget):
        return
    assert 0 <= target.start <= target.end <= len(text)
    if kind is not FillKind.PLACEHOLDER:
        assert start <= target.start <= target.end <= end
    request = fill_request(document, target, path="a", deadline_ms=1_000.0)
    replaced = text[target.start : target.end]
    for at in (target.start, target.end):
        assert document.lines.offset(*document.lines.position(at, encoding), encoding) == at, "it has a position"
    for candidate in fill_candidates(request, target, replaced, shaped_infill(request, *answers)):
        assert candidate.new_text != replaced
        assert candidate.label.strip()
        assert "\n" not in candidate.label
        if any(mark in text for mark in "\r\n"):
            bare = candidate.new_text.replace(line_end, "")
            assert "\n" not in bare
            assert "\r" not in bare
