"""The text around a cursor for the rules that shape an answer: lines above, the cursor's line, lines below.

Line ends are `\\n`, whatever the document has. Distant text is left out, so that long files cost no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dgemma_engine.postprocess.lexer import Language, Reading, cheap_end, cheap_start, language_named, read

# Characters on each side of the cursor that shaping reads. Reading them for brackets takes some milliseconds, and most
# answers need no such reading.
SHAPING_CHARS = 50_000
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
        start = cheap_start(before, 0, line_start, most_chars=SHAPING_CHARS, most_signs=_MOST_SIGNS)
        end = cheap_end(after, line_end, most_chars=SHAPING_CHARS, most_signs=_MOST_SIGNS)
        is_cut = is_cut or start > 0
        above = before[start:line_start]
        return cls(
            above=above.partition("\n")[2] if is_cut else above,
            before=near_end(before[line_start:]),
            rest=near_start(after[:line_end]),
            below=after[line_end:end].removeprefix("\n"),
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


def near_end(line: str) -> str:
    """Returns a line left of the cursor; of a very long one the end."""
    most_chars, most_signs = _LINE_CHARS_EACH_SIDE, _LINE_SIGNS_EACH_SIDE
    return line[cheap_start(line, 0, len(line), most_chars=most_chars, most_signs=most_signs) :]


def near_start(line: str) -> str:
    """Returns a line right of the cursor; of a very long one the beginning."""
    return line[: cheap_end(line, 0, most_chars=_LINE_CHARS_EACH_SIDE, most_signs=_LINE_SIGNS_EACH_SIDE)]


def normalize_newlines(text: str) -> str:
    """Returns a text with `\\n` for every `\\r\\n` and every lone `\\r`."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
