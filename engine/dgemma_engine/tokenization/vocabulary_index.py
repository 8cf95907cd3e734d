"""Which tokens may stand at the edges of a middle that has to begin or end with given text.

Turns text into token ids over one tokenizer's vocabulary; knows neither the model nor the canvas. A middle is bound by
text, not by tokens: `conf` may be the beginning of the token `config`, so a hypothesis clamps some tokens and leaves a
choice at the edge of the free text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from dgemma_engine.tokenization.tokenizer import Tokenizer


class Spelling:
    """The vocabulary of one tokenizer, looked up by the beginning and by the end of a token's text.

    Built on first use, which takes about 1 s for 262,144 tokens; `ending_with` builds an order of its own.

    Args:
        tokenizer: whose tokens; must not change.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def text_of(self, token_id: int) -> str | None:
        """Returns a token's text, or None where it has none of its own: special tokens, parts of a character, and rows
        of the model that no token has.
        """
        return self._texts[token_id] or None if token_id < len(self._texts) else None

    def starting_with(self, text: str) -> list[int]:
        """Returns the tokens whose text starts with `text`, in order of their text: one equal to `text` comes first."""
        return _slice(self._ascending, text, lambda token_id: self._texts[token_id][: len(text)])

    def beginning(self, text: str) -> list[int]:
        """Returns the tokens that `text` begins with, one of each length, the shortest first."""
        found = (self.starting_with(text[:size])[:1] for size in range(1, len(text) + 1))
        return list(dict.fromkeys(ids[0] for ids in found if ids and text.startswith(self._texts[ids[0]])))

    def ending_with(self, text: str) -> list[int]:
        """Returns the tokens whose text ends with `text`, in order of their text read backwards."""
        return _slice(self._ascending_backwards, text[::-1], lambda token_id: self._texts[token_id][::-1][: len(text)])

    def exact_ids(self, text: str) -> list[int]:
        """Returns the tokens of `text`, or none when they do not spell it again."""
        ids = self._tokenizer.encode(text)
        return ids if self._tokenizer.decode(ids) == text else []

    @property
    def with_text(self) -> Sequence[int]:
        """Tokens that have a text of their own."""
        return self._ascending

    @cached_property
    def with_line_break(self) -> frozenset[int]:
        """Tokens whose text holds the end of a line."""
        return frozenset(token_id for token_id, text in enumerate(self._texts) if "\n" in text or "\r" in text)

    @cached_property
    def closing_line(self) -> frozenset[int]:
        """Tokens whose text holds the last characters of a line and its end: `):` and a line break."""
        return frozenset(
            token_id for token_id in self.with_line_break if (self.text_of(token_id) or "").splitlines()[0].strip()
        )

    def with_break_behind(self, text: str) -> Sequence[int]:
        """Returns the tokens that hold a text and the end of a line after it; none for a text without any."""
        return self._closing_by_text.get(text, ())

    @cached_property
    def _closing_by_text(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for token_id in sorted(self.closing_line):
            found.setdefault((self.text_of(token_id) or "").splitlines()[0], []).append(token_id)
        return found

    @cached_property
    def _texts(self) -> list[str]:
        return [text or "" for text in self._tokenizer.token_texts()]

    @cached_property
    def _ascending(self) -> list[int]:
        spelled = [token_id for token_id, text in enumerate(self._texts) if text]
        return sorted(spelled, key=self._texts.__getitem__)

    @cached_property
    def _ascending_backwards(self) -> list[int]:
        return sorted(self._ascending, key=lambda token_id: self._texts[token_id][::-1])


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
    ids = spelling.exact_ids(begun)
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
    ids = spelling.exact_ids(left)
    texts = [spelling.text_of(token_id) for token_id in ids]
    rests: list[str | None] = list(accumulate(texts, lambda rest, text: rest and text and rest + text))
    choices = [
        Closing(last_ids=tuple(last_ids), given_ids=tuple(ids[count:]))
        for count, rest in reversed(list(enumerate(rests, start=1)))
        if rest and (last_ids := spelling.ending_with(rest))
    ]
    return choices[:1] + choices[1:][-1:] or [Closing(last_ids=None, given_ids=tuple(ids))]


def _slice(ascending: list[int], text: str, key: Callable[[int], str]) -> list[int]:
    return ascending[bisect_left(ascending, text, key=key) : bisect_right(ascending, text, key=key)]
