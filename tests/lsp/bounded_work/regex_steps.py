"""How many steps a backtracking matcher takes with a regular expression: pattern and text in, number of steps out.

Matches as `re` does, in Python, so that the steps can be counted: one for each element that is tried at a position. The
matcher of `re` takes some shortcuts; how the steps grow with the text is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

_CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}
_ONE_CHARACTER = {sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN}
_REPEATS = {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}


class Steps:
    """Matches one pattern against texts and counts.

    Args:
        pattern: compiled or as text.
    """

    def __init__(self, pattern: re.Pattern[str] | str) -> None:
        compiled = re.compile(pattern) if isinstance(pattern, str) else pattern
        self._parsed = _parser.parse(compiled.pattern, compiled.flags)
        self._flags = compiled.flags
        self._text = ""
        self._groups: dict[int, tuple[int, int]] = {}
        self.num = 0

    @property
    def literals(self) -> list[str]:
        """The runs of characters that stand in the pattern."""
        return sorted(set(_literals(self._parsed)))

    def match(self, text: str) -> int | None:
        """Matches at the beginning; returns where the match ends."""
        self._text, self.num, self._groups = text, 0, {}
        return next(self._sequence(list(self._parsed), 0, 0), None)

    def find_all(self, text: str) -> list[tuple[int, int]]:
        """Looks for all matches, as `finditer` does; returns where they are."""
        self._text, self.num, self._groups = text, 0, {}
        found: list[tuple[int, int]] = []
        start = 0
        while start <= len(text):
            end = next(self._sequence(list(self._parsed), 0, start), None)
            if end is not None:
                found.append((start, end))
            start = end if end is not None and end > start else start + 1
        return found

    def _sequence(self, items: Sequence[Any], index: int, at: int) -> Iterator[int]:
        if index == len(items):
            yield at
            return
        for end in self._item(items[index], at):
            yield from self._sequence(items, index + 1, end)

    def _item(self, item: Any, at: int) -> Iterator[int]:
        self.num += 1
        kind, value = item
        if kind in _ONE_CHARACTER:
            if at < len(self._text) and self._is_one(kind, value, self._text[at]):
                yield at + 1
        elif kind in _REPEATS:
            low, high, inner = value
            ends = self._repeated(kind, low, high, list(inner), at)
            yield from ends if kind is not sre.POSSESSIVE_REPEAT else _first(ends)
        elif kind is sre.BRANCH:
            for branch in value[1]:
                yield from self._sequence(list(branch), 0, at)
        elif kind is sre.SUBPATTERN:
            group, _, _, inner = value
            for end in self._sequence(list(inner), 0, at):
                self._groups[group] = at, end
                yield end
        elif kind is sre.ATOMIC_GROUP:
            yield from _first(self._sequence(list(value), 0, at))
        elif kind in {sre.ASSERT, sre.ASSERT_NOT}:
            direction, inner = value
            start = at if direction > 0 else at - inner.getwidth()[0]
            holds = start >= 0 and next(self._sequence(list(inner), 0, start), None) is not None
            if holds == (kind is sre.ASSERT):
                yield at
        elif kind is sre.GROUPREF:
            said = self._text[slice(*self._groups[value])]
            if self._text.startswith(said, at):
                yield at + len(said)
        elif kind is sre.AT:
            if self._is_at(value, at):
                yield at
        elif kind is not sre.FAILURE:
            assert kind is sre.ASSERT_NOT, f"{kind} is not supported"

    def _repeated(self, kind: Any, low: int, high: int, inner: list[Any], at: int) -> Iterator[int]:
        if len(inner) == 1 and inner[0][0] in _ONE_CHARACTER:
            most = 0
            while most < high and at + most < len(self._text) and self._is_one(*inner[0], self._text[at + most]):
                most += 1
                self.num += 1
            counts = range(low, most + 1) if kind is sre.MIN_REPEAT else range(most, low - 1, -1)
            for count in counts:
                self.num += 1
                yield at + count
            return
        yield from self._more(kind, low, high, inner, at, 0)

    def _more(self, kind: Any, low: int, high: int, inner: list[Any], at: int, count: int) -> Iterator[int]:
        if kind is sre.MIN_REPEAT and count >= low:
            yield at
        if count < high:
            for end in self._sequence(inner, 0, at):
                if end > at or count < low:
                    yield from self._more(kind, low, high, inner, end, count + 1)
        if kind is not sre.MIN_REPEAT and count >= low:
            yield at

    def _is_one(self, kind: Any, value: Any, character: str) -> bool:
        if kind is sre.LITERAL or kind is sre.NOT_LITERAL:
            same = character == chr(value) or (
                bool(self._flags & re.IGNORECASE) and character.lower() == chr(value).lower()
            )
            return same == (kind is sre.LITERAL)
        if kind is sre.ANY:
            return character != "\n" or bool(self._flags & re.DOTALL)
        members = list(value)
        negated = members[0][0] is sre.NEGATE
        return any(_is_member(member, character) for member in members[negated:]) != negated

    def _is_at(self, where: Any, at: int) -> bool:
        text = self._text
        if where in {sre.AT_BEGINNING, sre.AT_BEGINNING_STRING}:
            is_line = where is sre.AT_BEGINNING and self._flags & re.MULTILINE
            return at == 0 or bool(is_line and text[at - 1] == "\n")
        if where is sre.AT_END_STRING:
            return at == len(text)
        if where is sre.AT_END:
            is_line = self._flags & re.MULTILINE and text[at : at + 1] == "\n"
            return bool(at == len(text) or is_line or (at == len(text) - 1 and text[at] == "\n"))
        is_word = [bool(re.match(r"\w", text[index : index + 1])) if index >= 0 else False for index in (at - 1, at)]
        return (is_word[0] != is_word[1]) == (where is sre.AT_BOUNDARY)


def _first(ends: Iterator[int]) -> Iterator[int]:
    end = next(ends, None)
    if end is not None:
        yield end


def _is_member(member: Any, character: str) -> bool:
    kind, value = member
    if kind is sre.LITERAL:
        return character == chr(value)
    if kind is sre.RANGE:
        return value[0] <= ord(character) <= value[1]
    return re.match(_CATEGORIES[value], character) is not None


def _literals(items: Any) -> Iterator[str]:
    run = ""
    for kind, value in items:
        if kind is sre.LITERAL:
            run += chr(value)
            continue
        if run:
            yield run
        run = ""
        if kind in _REPEATS:
            yield from _literals(value[2])
        elif kind is sre.BRANCH:
            for branch in value[1]:
                yield from _literals(branch)
        elif kind is sre.SUBPATTERN:
            yield from _literals(value[3])
        elif kind is sre.ATOMIC_GROUP:
            yield from _literals(value)
        elif kind in {sre.ASSERT, sre.ASSERT_NOT}:
            yield from _literals(value[1])
    if run:
        yield run
