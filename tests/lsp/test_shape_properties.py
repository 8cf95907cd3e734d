"""Properties of every document, edit, encoding and answer: an editor's item inserts the engine's text."""

from __future__ import annotations

import re

from dgemma_engine.postprocess.cursor_context import extent_of
from dgemma_engine.protocol.messages import Extent
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding
from dgemma_lsp.documents.store import Document, Documents, Edit
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Channel, Request, Trigger, build_completions
from dgemma_lsp.server import conversions
from tests.lsp.shaped_infill import shaped_infill

CODECS = {PositionEncoding.UTF8: "utf-8", PositionEncoding.UTF16: "utf-16-le", PositionEncoding.UTF32: "utf-32-le"}
UNIT_BYTES = {PositionEncoding.UTF8: 1, PositionEncoding.UTF16: 2, PositionEncoding.UTF32: 4}
LANGUAGES = ("python", "javascript", "typescript", "go", "rust", "c", "java", "html", "yaml", "markdown", "other", "")
PIECES = (
    *("a", "bc", "if x:", "=", " ", "  ", "    ", "\t", "(", ")", "[", "]", "{", "}", ",", ";", ":", '"', "'", "`"),
    *("#", "//", "/*", "*/", "<p>", "</p>", "- ", "```", "\\", "é", "e\u0301", "😋", "\x0c", "\u2028", "\n", "\n"),
)
LINE_END = re.compile(r"\r\n|\r|\n")

texts = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
encodings = st.sampled_from(list(PositionEncoding))
line_ends = st.sampled_from(["\n", "\r\n", "\r"])


def edited_by_client(text: str, span: types.Range, new: str, encoding: PositionEncoding) -> str:
    """Returns `text` with `span` replaced as an editor does it: by code units, with none of the tested code."""
    starts = [0, *(match.end() for match in LINE_END.finditer(text))]

    def offset(place: types.Position) -> int:
        line = LINE_END.split(text[starts[place.line] :], maxsplit=1)[0]
        units = line.encode(CODECS[encoding])
        assert place.character * UNIT_BYTES[encoding] <= len(units), "a column within the line"
        return starts[place.line] + len(units[: place.character * UNIT_BYTES[encoding]].decode(CODECS[encoding]))

    return text[: offset(span.start)] + new + text[offset(span.end) :]


def asked(document: Document, offset: int, encoding: PositionEncoding) -> Request:
    line, column = document.lines.position(offset, encoding)
    return conversions.to_request(
        document,
        types.Position(line=line, character=column),
        encoding=encoding,
        roots=(),
        trigger=Trigger.INVOKED,
        channel=Channel.GHOST_TEXT,
        deadline_ms=1.0,
    )


def without_blanks(text: str) -> str:
    return "".join(text.split())


@given(data=st.data(), text=texts, edit=texts, answer=texts, line_end=line_ends, encoding=encodings)
def test_item_inserts_the_engines_text_and_touches_no_other_line(
    data: st.DataObject, text: str, edit: str, answer: str, line_end: str, encoding: PositionEncoding
) -> None:
    text, edit = (part.replace("\n", line_end) for part in (text, edit))
    documents = Documents()
    documents.open(Document(uri="u", version=1, language=data.draw(st.sampled_from(LANGUAGES)), text=text))
    lines = LineIndex(text)
    start, end = (lines.position(data.draw(st.integers(0, len(text))), encoding) for _ in range(2))
    documents.change("u", 2, [Edit(span=(min(start, end), max(start, end)), text=edit)], encoding)
    document = documents.get("u")
    assert document is not None
    request = asked(document, data.draw(st.integers(0, len(document.text))), encoding)

    for completion in build_completions(request, shaped_infill(request, answer)):
        item = conversions.to_inline_item(completion, document.lines, encoding, accepted=None)
        assert item.range is not None
        assert isinstance(item.insert_text, str)
        accepted = edited_by_client(document.text, item.range, item.insert_text, encoding)
        assert item.range.start.line == item.range.end.line
        assert accepted.startswith(document.text[: request.offset])
        assert accepted.endswith(document.text[request.line_end :])
        assert "\r" not in item.insert_text
        assert extent_of(request.before, request.rest, request.language) is Extent.BLOCK or "\n" not in item.insert_text

        said, meant = without_blanks(completion.inserted), without_blanks(answer)
        shared = next((count for count in range(len(said), -1, -1) if meant.startswith(said[:count])), 0)
        assert set(said[shared:]) <= set(")]}\"'"), "nothing but closed brackets and strings is added"
        covered = document.text[completion.cursor : completion.end]
        following = iter(completion.inserted)
        assert all(character in following for character in covered), "an editor cannot draw this as ghost text"


@st.composite
def statements(draw: st.DrawFn) -> list[list[str]]:
    """Draws lines of tokens in which nothing occurs twice but punctuation; every bracket has its partner."""
    lines: list[list[str]] = []
    for number in range(draw(st.integers(2, 6))):
        words = iter(f"{kind}{number}_{index}" for index in range(9) for kind in ("é", "😋b", "word"))
        tokens = [next(words)]
        for shape in draw(st.lists(st.sampled_from(("call", "item", "text", "sum")), max_size=4)):
            first, second = next(words), next(words)
            tokens += {
                "call": ["(", first, ", ", second, ")"],
                "item": ["[", first, "]"],
                "text": [" + ", f'"{first} {second}"'],
                "sum": [" + ", first],
            }[shape]
        lines.append(tokens)
    return lines


@given(
    data=st.data(),
    lines=statements(),
    indent=st.sampled_from(["", "  ", "\t"]),
    line_end=line_ends,
    encoding=encodings,
    language=st.sampled_from(["python", "javascript", "go", "rust", "java", "yaml", "other"]),
)
def test_suffix_is_never_repeated(
    data: st.DataObject,
    lines: list[list[str]],
    indent: str,
    line_end: str,
    encoding: PositionEncoding,
    language: str,
) -> None:
    """Part of a line is taken out; the answer is that part, then any piece of what follows, even over several lines."""
    index = data.draw(st.integers(0, len(lines) - 1))
    tokens = lines[index]
    first = data.draw(st.integers(0, len(tokens) - 1))
    last = data.draw(st.integers(first + 1, len(tokens)))
    before, truth, rest = (indent + "".join(tokens[:first]), "".join(tokens[first:last]), tokens[last:])
    above = [indent + "".join(line) for line in lines[:index]]
    below = [indent + "".join(line) for line in lines[index + 1 :]]
    copied = "".join(rest[: data.draw(st.sampled_from([0, 1, len(rest), len(rest)]))])
    if copied == "".join(rest):
        copied += "".join(f"\n{line}" for line in below[: data.draw(st.integers(0, len(below)))])

    whole = line_end.join([*above, before + truth + "".join(rest), *below])
    text = line_end.join([*above, before + "".join(rest), *below])
    offset = len(line_end.join([*above, before]))
    document = Document(uri="u", version=1, language=language, text=text)
    request = asked(document, offset, encoding)
    (completion,) = build_completions(request, shaped_infill(request, truth + copied))
    item = conversions.to_inline_item(completion, document.lines, encoding, accepted=None)
    assert item.range is not None
    assert isinstance(item.insert_text, str)
    assert edited_by_client(text, item.range, item.insert_text, encoding) == whole


@given(
    data=st.data(),
    lines=statements(),
    indent=st.sampled_from(["", "  ", "\t"]),
    language=st.sampled_from(["python", "javascript", "go", "rust", "java", "other"]),
)
def test_lines_below_are_never_repeated(
    data: st.DataObject, lines: list[list[str]], indent: str, language: str
) -> None:
    """Whole lines are taken out; the answer is those lines, then any number of the lines that follow."""
    start = data.draw(st.integers(0, len(lines) - 1))
    end = data.draw(st.integers(start + 1, len(lines)))
    said = [indent + "".join(line) for line in lines]
    answer = "\n".join(said[start : data.draw(st.integers(end, len(said)))]).removeprefix(indent)
    text = "\n".join([*said[:start], indent, *said[end:]])
    document = Document(uri="u", version=1, language=language, text=text)
    request = asked(document, len("\n".join([*said[:start], indent])), PositionEncoding.UTF16)
    (completion,) = build_completions(request, shaped_infill(request, answer))
    assert text[: completion.start] + completion.text + text[completion.end :] == "\n".join(said)


@given(data=st.data(), text=texts, selected=texts, answer=texts, line_end=line_ends, encoding=encodings)
def test_item_extends_what_is_selected(
    data: st.DataObject, text: str, selected: str, answer: str, line_end: str, encoding: PositionEncoding
) -> None:
    document = Document(uri="u", version=1, language="python", text=text.replace("\n", line_end))
    request = asked(document, data.draw(st.integers(0, len(document.text))), encoding)
    if data.draw(st.booleans()):
        offsets = (
            data.draw(st.integers(request.line_start, request.offset)),
            data.draw(st.integers(request.offset, request.line_end)),
        )
        selection = conversions.to_range(*offsets, document.lines, encoding)
    else:
        numbers = st.integers(0, 40)
        start, end = (types.Position(line=data.draw(numbers), character=data.draw(numbers)) for _ in range(2))
        selection = types.Range(start=start, end=end)
    info = types.SelectedCompletionInfo(range=selection, text=selected)
    request = conversions.with_selected(request, info, document.lines, encoding)
    context = build_context(request, ContextLimits())
    for completion in build_completions(request, shaped_infill(request, answer)):
        assert request.line_start <= completion.start <= completion.end <= request.line_end
        if request.selected is not None:
            assert completion.text.startswith(selected)
            assert context.prefix.endswith(selected.encode("utf-16", "surrogatepass").decode("utf-16"))
            assert completion.start == request.selected.start
            assert completion.end >= request.selected.end
