"""Token healing: where the text around a cursor is cut so that a tokenizer cuts it as it does in whole files.

A cursor stands in mid-word, after an opening bracket or a space, where tokens straddle it. What a token may straddle
is taken off the prefix (`opening`) and off the suffix (`closing`); the middle then has to begin and end with it. These
rules know no tokens: they hold for byte-level BPEs that give a word the space before it and for Gemma's SentencePiece
alike. A middle is bound by text, not by tokens: `conf` may be the beginning of the token `config`. `openings` and
`closings` give the tokens to clamp, and the choice at the edge of the free text. Knows no model and no canvas.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, takewhile

from dgemma_engine.tokenization.tokenizer import Spelling

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One way to begin a middle.

    Attributes:
        given_ids: clamped at the row's start.
        first_ids: what the position after them may take, the plainest first; None if anything.
    """

    given_ids: tuple[int, ...]
    first_ids: tuple[int, ...] | None

    def allowed(self, ids: Sequence[int]) -> tuple[int, ...] | None:
        """Returns the tokens that may follow `ids`, which begin with the given ones; None if anything."""
        return self.first_ids if len(ids) == len(self.given_ids) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """One way to end a middle whose length is fixed.

    Attributes:
        last_ids: what the last free position may take; None if anything.
        given_ids: clamped after it.
    """

    last_ids: tuple[int, ...] | None
    given_ids: tuple[int, ...]


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
    size = _run(reversed(prefix), " \t".__contains__)
    if not size or prefix[-size - 1 : -size] not in ("", "\n", "\r"):
        size = _run(reversed(prefix), _is_word)
        if not size:
            size = _run(reversed(prefix), _PUNCTUATION.__contains__)
            if size and (size > _MAX_PUNCTUATION or prefix[-1] not in _JOINING):
                return Boundary(prefix=prefix, opening="", closing="", suffix=suffix)
        # Gemma merges a dot with the underscores after it, but not with letters.
        end = len(prefix) - size
        has_dot = prefix.endswith("._", 0, end + 1)
        size += has_dot or (prefix.endswith(" ", 0, end) and not prefix.endswith("  ", 0, end))
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


def openings(begun: str, spelling: Spelling) -> list[Opening]:
    """Returns one or two ways to begin a middle with `begun`, the likelier first.

    The tokens of `begun` are clamped but for the last few, and the first free token has to begin with their text. The
    first way leaves as many open as a token of the vocabulary covers: all of ` conf`, because of ` config`; of
    `max_len` what follows `max_`. The second leaves the last one open, which suits every text that begins with `begun`.

    They do not hold every way in which a tokenizer may cut a text that begins with `begun`: with `mem` a token, both
    begin with all of `mem`, where `memory` may be cut as `me` and `mory`. Such a text is spelled otherwise, not lost.

    The first way's `given_ids` begin the second's, so they may as well go into the prompt.

    Args:
        begun: text the middle has to begin with; empty for a middle that is free.
        spelling: of the model's tokens.

    Returns:
        At least one way. For text that the tokenizer cannot spell exactly, one that binds nothing.
    """
    ids = spelling.tokenizer.encode(begun)
    ids = ids if spelling.tokenizer.decode(ids) == begun else []
    texts = [spelling.text_of(token_id) for token_id in ids]
    rests: list[str | None] = list(accumulate(reversed(texts), lambda rest, text: rest and text and text + rest))
    choices = [
        Opening(given_ids=tuple(ids[:count]), first_ids=tuple(first_ids))
        for count, rest in enumerate(reversed(rests))
        if rest and (first_ids := spelling.starting_with(rest))
    ]
    return choices[:1] + choices[1:][-1:] or [Opening(given_ids=tuple(ids), first_ids=None)]


def closings(left: str, spelling: Spelling) -> list[Closing]:
    """Returns one or two ways to end a middle with `left`: `openings` read backwards.

    Args:
        left: text the middle has to end with; empty for a middle that is free.
        spelling: of the model's tokens.

    Returns:
        At least one way. For text that the tokenizer cannot spell exactly, one that binds nothing.
    """
    ids = spelling.tokenizer.encode(left)
    ids = ids if spelling.tokenizer.decode(ids) == left else []
    texts = [spelling.text_of(token_id) for token_id in ids]
    rests: list[str | None] = list(accumulate(texts, lambda rest, text: rest and text and rest + text))
    choices = [
        Closing(last_ids=tuple(last_ids), given_ids=tuple(ids[count:]))
        for count, rest in reversed(list(enumerate(rests, start=1)))
        if rest and (last_ids := spelling.ending_with(rest))
    ]
    return choices[:1] + choices[1:][-1:] or [Closing(last_ids=None, given_ids=tuple(ids))]


def _run(characters: Iterable[str], belongs: Callable[[str], bool]) -> int:
    """Counts the leading characters that belong, up to one more than may be taken off."""
    return sum(1 for _ in takewhile(belongs, islice(characters, _MAX_CHARACTERS + 1)))


def _is_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LM"
