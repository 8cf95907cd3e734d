"""The text around a cursor for the rules that shape an answer: lines above, the cursor's line, lines below.

Line ends are `\\n`, whatever the document has. What is far away is left out, so that long files cost no more.
`extent_of` says of the cursor's line how far an answer may reach, before the engine is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from dgemma_engine.postprocess.lexer import SIGNS, Language, Reading, language_named, read
from dgemma_engine.protocol.messages import Extent

# Characters on each side of the cursor that shaping reads. Reading them for brackets takes some milliseconds, and most
# answers need no such reading.
SHAPING_CHARS = 50_000
# Twice as many brackets and quotes as hand-written code has in as much text.
_MOST_SIGNS = 10_000
# The cursor's line is read several times for each answer.
_LINE_CHARS_EACH_SIDE = 10_000
_LINE_SIGNS_EACH_SIDE = 1_000
_CLOSING = re.compile(r"\s*+\}[)\]}]*+[;,]?\s*+\Z")


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
    def of(cls, before: str, after: str, language: str, *, is_cut: bool = False) -> CursorContext:
        """Returns what stands around a cursor.

        Args:
            before: the document before the cursor, its line ends as they are.
            after: the document after the cursor, likewise.
            language: LSP language id; may be empty.
            is_cut: whether the document has text before `before`.
        """
        before, after = normalize_newlines(before), normalize_newlines(after)
        line_start, line_end = before.rfind("\n") + 1, after.find("\n")
        line_end = len(after) if line_end < 0 else line_end
        above = near_end(before[:line_start], most_chars=SHAPING_CHARS, most_signs=_MOST_SIGNS)
        below = near_start(after[line_end:], most_chars=SHAPING_CHARS, most_signs=_MOST_SIGNS)
        is_cut = is_cut or len(above) < line_start
        return cls(
            above=above.partition("\n")[2] if is_cut else above,
            before=near_end(before[line_start:]),
            rest=near_start(after[:line_end]),
            below=below.removeprefix("\n"),
            language=language_named(language),
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


def extent_of(before: str, rest: str, language_id: str) -> Extent:
    """Returns how far the answer may reach.

    Several lines on a blank line, after what opens a block, and between the two brackets of an empty one, `{|}`;
    anywhere else one line.

    Args:
        before: the cursor's line, left of the cursor.
        rest: the cursor's line, right of the cursor.
        language_id: as LSP spells it.
    """
    language = language_named(language_id)
    before, rest = near_end(before), near_start(rest)
    if rest.strip():
        is_empty_block = before.rstrip().endswith("{") and _CLOSING.match(rest)
        return Extent.BLOCK if is_empty_block and not language.indents_blocks else Extent.LINE
    return Extent.BLOCK if not before.strip() or opens_block(before, language) else Extent.LINE


def opens_block(line: str, language: Language) -> bool:
    """Whether the lines below `line` belong to what its end opens; of a very long line its end is read."""
    code = near_end(line).rstrip()
    reading = read(code, language)
    if reading.inside and reading.inside == language.comment:
        code = code[: reading.inside_from].rstrip()
    elif reading.inside:
        return False
    return language.opener.search(code) is not None


def near_end(text: str, *, most_chars: int = _LINE_CHARS_EACH_SIDE, most_signs: int = _LINE_SIGNS_EACH_SIDE) -> str:
    """Returns the end of a text, by default of a line: at most so many characters, brackets and quotes."""
    start = max(0, len(text) - most_chars)
    while start < len(text) and sum(text.count(sign, start) for sign in SIGNS) > most_signs:
        start = (start + len(text) + 1) // 2
    return text[start:]


def near_start(text: str, *, most_chars: int = _LINE_CHARS_EACH_SIDE, most_signs: int = _LINE_SIGNS_EACH_SIDE) -> str:
    """Returns the beginning of a text, by default of a line: at most so many characters, brackets and quotes."""
    end = min(len(text), most_chars)
    while end and sum(text.count(sign, 0, end) for sign in SIGNS) > most_signs:
        end //= 2
    return text[:end]


def normalize_newlines(text: str) -> str:
    """Returns a text with `\\n` for every `\\r\\n` and every lone `\\r`."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
