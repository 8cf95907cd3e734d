"""What stands around a cursor, as the rules that shape an answer read it: lines above, the cursor's line, lines below.

Line ends are `\\n`, whatever the document has. What is far away is left out, so that long files cost no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dgemma_lsp.postprocess.languages import Language, language_named
from dgemma_lsp.postprocess.lexer import Reading, cheap_end, cheap_start, read
from dgemma_lsp.request import Request

# Reading as much for brackets takes some milliseconds, and most answers need no such reading.
_CHARS_EACH_SIDE = 50_000
# Twice as many as code that people write has in as much text.
_MOST_SIGNS = 10_000
# The cursor's line is read several times for each answer.
_LINE_CHARS_EACH_SIDE = 10_000
_LINE_SIGNS_EACH_SIDE = 1_000


@dataclass(frozen=True, kw_only=True)
class CursorContext:
    """The text around one cursor.

    Attributes:
        above: whole lines above the cursor's, each with its line end.
        before: the cursor's line, left of the cursor; of a very long one the end.
        rest: the cursor's line, right of the cursor; of a very long one the beginning.
        below: whole lines below the cursor's.
        language: of the text.
        reaches_start: whether `above` begins where the document does.
    """

    above: str
    before: str
    rest: str
    below: str
    language: Language
    reaches_start: bool = True

    @classmethod
    def of(cls, request: Request) -> CursorContext:
        """Returns what stands around a request's cursor."""
        line_start, line_end = request.line_start, request.line_end
        start = cheap_start(request.text, 0, line_start, most_chars=_CHARS_EACH_SIDE, most_signs=_MOST_SIGNS)
        end = cheap_end(request.text, line_end, most_chars=_CHARS_EACH_SIDE, most_signs=_MOST_SIGNS)
        is_cut = bool(start or request.skipped)
        above = _unix(request.text[start:line_start])
        if is_cut:
            above = above.partition("\n")[2]
        below = _unix(request.text[line_end:end])
        return cls(
            above=above,
            before=line_before(request),
            rest=line_rest(request),
            below=below.removeprefix("\n"),
            language=language_named(request.language),
            reaches_start=not is_cut,
        )

    @cached_property
    def lines_above(self) -> list[str]:
        """The lines of `above`, without their ends."""
        return self.above.split("\n")[:-1]

    @cached_property
    def lines_below(self) -> list[str]:
        """The lines of `below`, without their ends."""
        return self.below.split("\n")

    @cached_property
    def read_above(self) -> Reading:
        """What `above` leaves unpaired."""
        return read(self.above, self.language)

    @cached_property
    def read_below(self) -> Reading:
        """What `below` leaves unpaired, read as if it began outside of strings and comments."""
        return read(self.below, self.language)


def line_before(request: Request) -> str:
    """Returns the cursor's line left of the cursor; of a very long one the end."""
    start, offset = request.line_start, request.offset
    most_chars, most_signs = _LINE_CHARS_EACH_SIDE, _LINE_SIGNS_EACH_SIDE
    return request.text[cheap_start(request.text, start, offset, most_chars=most_chars, most_signs=most_signs) : offset]


def line_rest(request: Request) -> str:
    """Returns the cursor's line right of the cursor; of a very long one the beginning."""
    offset = request.offset
    end = cheap_end(request.text, offset, most_chars=_LINE_CHARS_EACH_SIDE, most_signs=_LINE_SIGNS_EACH_SIDE)
    return request.text[offset : min(end, request.line_end)]


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
