"""Text as lexemes: what two pieces of code are compared by, whatever the tokenizer.

Turns one line of text into words (identifiers, numbers) and single punctuation characters. White space is dropped;
where lexemes of several lines follow each other, `LINE_BREAK` stands between the lines.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

LINE_BREAK = "\n"
# Longer lines are data or were made by a machine: nobody types their like.
MAX_LINE_CHARACTERS = 512

_LEXEME = re.compile(r"\w+|[^\w\s]")


def lexemes_of(text: str) -> tuple[str, ...]:
    """Returns the lexemes of one line."""
    # A lexeme recurs all over a document: one object for all of them saves memory and makes comparing them fast.
    return tuple(map(sys.intern, _LEXEME.findall(text)))


def spans_of(text: str) -> list[tuple[int, int]]:
    """Returns where each of `lexemes_of(text)` starts and ends, in characters."""
    return [match.span() for match in _LEXEME.finditer(text)]


def is_word(lexeme: str) -> bool:
    """Whether a lexeme is an identifier or a number, not punctuation or a line break."""
    return lexeme[0].isalnum() or lexeme[0] == "_"


def indent_of(text: str) -> str:
    """Returns the white space a line begins with."""
    return text[: len(text) - len(text.lstrip())]


def num_matched(wanted: Iterable[str], found: Iterable[str]) -> int:
    """Returns how many leading lexemes are the same."""
    count = 0
    for a, b in zip(wanted, found, strict=False):
        if a != b:
            break
        count += 1
    return count
