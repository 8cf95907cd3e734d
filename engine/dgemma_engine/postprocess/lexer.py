"""What a text leaves unpaired: brackets without partner, and the string or comment that it ends in.

Pure. Reads strings, comments and brackets as a language spells them; no grammar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dgemma_engine.postprocess.languages import Language

CLOSER_OF = {"(": ")", "[": "]", "{": "}"}
OPENER_OF = {closer: opener for opener, closer in CLOSER_OF.items()}
_BRACKETS = "()[]{}"
# What costs as much as a hundred other characters to read.
_SIGNS = _BRACKETS + "\"'`"
_QUOTES = frozenset("\"'`")


class Bracket(NamedTuple):
    """A bracket whose partner stands outside the text that was read; `offset` counts from that text's start."""

    sign: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a text leaves unpaired.

    Attributes:
        closing: brackets that close what was opened before the text, in order.
        opening: brackets that the text does not close, the outermost first.
        inside: the delimiter of the string, or the beginning of the comment, that the text ends in; empty for neither.
        inside_from: where that begins, if any.
    """

    closing: tuple[Bracket, ...]
    opening: tuple[Bracket, ...]
    inside: str = ""
    inside_from: int = 0


def read(text: str, language: Language) -> Reading:
    """Returns what `text`, which must not begin inside a string or a comment, leaves unpaired."""
    closing: list[tuple[str, int]] = []
    opening: list[tuple[str, int]] = []
    num_open = dict.fromkeys(CLOSER_OF, 0)
    brackets = _BRACKETS if language.has_brackets else ""
    search, match = language.signs.search, language.pieces.match
    inside, inside_from = "", 0
    end = 0
    while (sign := search(text, end)) is not None:
        start, said = sign.start(), sign.group()
        if said not in brackets:
            piece = match(text, start)
            end = piece.end() if piece else sign.end()
            if piece and end == len(text) and not _is_whole(piece.group(), language):
                inside, inside_from = _delimiter(piece.group(), language), start
            continue
        end = start + 1
        if said in CLOSER_OF:
            opening.append((said, start))
            num_open[said] += 1
        elif num_open[OPENER_OF[said]]:
            closed = ""
            while closed != OPENER_OF[said]:
                closed = opening.pop()[0]
                num_open[closed] -= 1
        else:
            closing.append((said, start))
    return Reading(closing=_brackets(closing), opening=_brackets(opening), inside=inside, inside_from=inside_from)


def lines_inside(text: str, language: Language) -> list[tuple[int, int]]:
    """Returns where strings and comments that hold a line end start and end; read in one pass, as `read` does."""
    spans: list[tuple[int, int]] = []
    end = 0
    while (sign := language.text_signs.search(text, end)) is not None:
        piece = language.pieces.match(text, sign.start())
        end = piece.end() if piece else sign.end()
        if piece and text.find("\n", piece.start(), end) >= 0:
            spans.append((piece.start(), end))
    return spans


def cheap_start(text: str, start: int, end: int, *, most_chars: int, most_signs: int) -> int:
    """Returns from where on `text[start:end]` is read: at most so many characters with so many brackets and quotes."""
    start = max(start, end - most_chars)
    while start < end and _num_signs(text, start, end) > most_signs:
        start = (start + end + 1) // 2
    return start


def cheap_end(text: str, start: int, *, most_chars: int, most_signs: int) -> int:
    """Returns up to where `text[start:]` is read: at most so many characters with so many brackets and quotes."""
    end = min(len(text), start + most_chars)
    while start < end and _num_signs(text, start, end) > most_signs:
        end = (start + end) // 2
    return end


def _num_signs(text: str, start: int, end: int) -> int:
    return sum(text.count(sign, start, end) for sign in _SIGNS)


def _brackets(found: list[tuple[str, int]]) -> tuple[Bracket, ...]:
    return tuple(map(Bracket._make, found))


def _delimiter(piece: str, language: Language) -> str:
    """Returns what a string or comment begins with."""
    longer = [*language.long_quotes, language.comment]
    return next((sign for sign in longer if sign and piece.startswith(sign)), piece[0])


def _is_whole(piece: str, language: Language) -> bool:
    """Whether a string or comment at the end of a text has its end; a comment that ends with its line never has."""
    if language.comment and piece.startswith(language.comment):
        return False
    if piece[0] in _QUOTES:
        delimiter = _delimiter(piece, language)
        return len(piece) >= 2 * len(delimiter) and piece.endswith(delimiter) and not _escapes_end(piece)
    return piece.endswith(("*/", "-->"))


def _escapes_end(piece: str) -> bool:
    bare = piece[:-1].rstrip("\\")
    return (len(piece) - 1 - len(bare)) % 2 == 1
