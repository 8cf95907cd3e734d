"""Where the text around a cursor is cut so that a tokenizer cuts it as it does in whole files: strings to strings.

A cursor stands in mid-word, after an opening bracket or a space, where tokens straddle it. What a token may straddle
is taken off the prefix (`opening`) and off the suffix (`closing`); the middle then has to begin and end with it. Knows
no tokens: the rules hold for byte-level BPEs that give a word the space before it and for Gemma's SentencePiece alike.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice, takewhile

# Longest text taken off either side; what is longer is no word anyone types, and costs canvas positions.
_MAX_CHARACTERS = 64
# Longest run of punctuation taken off the prefix; longer ones are rulers and the like.
_MAX_PUNCTUATION = 3
_PUNCTUATION = frozenset(string.punctuation) - {"_"}
# Punctuation that Gemma's tokenizer and the embedded one often merge with what follows, as in `("`, `')` and `->`. The
# rest nearly always ends its token, but for Gemma's `._`.
_JOINING = frozenset("()[]{}\"'`=-+*/<>!")


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """A prefix and a suffix, cut at token boundaries.

    Attributes:
        prefix: what the model reads before the hole.
        opening: what was taken off the prefix's end; the middle must begin with it. Holds no line break but where a
            whole token was taken off.
        closing: what was taken off the suffix's beginning; the middle must end with it. Holds no line break.
        suffix: what the model reads after the hole.
    """

    prefix: str
    opening: str
    closing: str
    suffix: str


def back_off(prefix: str, suffix: str) -> Boundary:
    """Moves both sides of a cursor back to token boundaries.

    Taken off the prefix is the first of these that the cursor stands after, if it has at most 64 characters:

    - spaces and tabs that are all there is of the line: the next token may be a deeper indentation;
    - a word (letters, marks, underscores) with the one space before it, `x = conf|`, or with the dot before its leading
      underscore, `self._conf|`. Digits are tokens of their own, so they end a word: of `x1_foo|` it is `_foo`, of
      `x1|` nothing;
    - one to three punctuation characters with the one space before them, when the last of them is often the beginning
      of a longer token: `print(|`, `x !|`; nothing after a dot, a comma or a colon;
    - one space: `return |`. Two or more in mid-line are a token without the word after them.

    Taken off the suffix is the rest of the word that the cursor stands in. Line breaks stay where they are.

    Args:
        prefix: text before the cursor.
        suffix: text after it.

    Returns:
        Its `prefix + opening` and `closing + suffix` are the arguments.
    """
    size = (
        _indent_size(prefix)
        or _word_piece_size(prefix)
        or _punctuation_piece_size(prefix)
        or _space_size(prefix, len(prefix))
    )
    if size > _MAX_CHARACTERS:
        size = 0
    start = len(prefix) - size
    closing_size = _run(suffix, _is_word) if size and _is_word(prefix[-1]) else 0
    if closing_size > _MAX_CHARACTERS:
        closing_size = 0
    return Boundary(
        prefix=prefix[:start], opening=prefix[start:], closing=suffix[:closing_size], suffix=suffix[closing_size:]
    )


def trimmed(text: str, boundary: Boundary) -> str | None:
    """Returns what to insert at the cursor, or None when the middle does not begin and end as it must.

    Args:
        text: the middle as the model wrote it, before anything else is cut off it.
        boundary: where its hole was.
    """
    opening, closing = boundary.opening, boundary.closing
    # One token may hold both, but not the same characters twice.
    if len(text) < len(opening) + len(closing) or not text.startswith(opening) or not text.endswith(closing):
        return None
    return text[len(opening) : len(text) - len(closing)]


def _indent_size(prefix: str) -> int:
    size = _run(reversed(prefix), " \t".__contains__)
    return size if size and prefix[-size - 1 : -size] in ("", "\n", "\r") else 0


def _word_piece_size(prefix: str) -> int:
    size = _run(reversed(prefix), _is_word)
    start = len(prefix) - size
    # Gemma merges a dot with the underscores after it, but not with letters.
    if prefix.endswith("._", 0, start + 1):
        return size + 1
    return size and size + _space_size(prefix, start)


def _punctuation_piece_size(prefix: str) -> int:
    size = _run(reversed(prefix), _PUNCTUATION.__contains__)
    if not 0 < size <= _MAX_PUNCTUATION or prefix[-1] not in _JOINING:
        return 0
    return size + _space_size(prefix, len(prefix) - size)


def _space_size(prefix: str, end: int) -> int:
    """Returns 1 when there is one space before `end` and no more."""
    return int(prefix.endswith(" ", 0, end) and not prefix.endswith("  ", 0, end))


def _run(characters: Iterable[str], belongs: Callable[[str], bool]) -> int:
    """Counts the leading characters that belong, up to one more than may be taken off."""
    return sum(1 for _ in takewhile(belongs, islice(characters, _MAX_CHARACTERS + 1)))


def _is_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LM"
