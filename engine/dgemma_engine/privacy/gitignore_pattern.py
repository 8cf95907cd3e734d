"""One pattern of an ignore file -> the regular expression of the paths that git's wildmatch takes. Pure.

Every text becomes an expression or a `PatternError`. The time of a match grows with the path's length times the
pattern's: what stands between two wildcards is searched from the left and, once found, not searched again.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

MAX_CHARS = 4_096
_NOT_SLASH = "[^/]"
_WILDCARD = re.compile(r"[*?\[\\]")
# Zero or more folders.
_FOLDERS = "(?:[^/]+/)*"
# git's classes are ASCII's, whatever the language of the system.
_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, [*range(32), 127])),
    "digit": string.digits,
    "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))),
    "punct": string.punctuation,
    "space": " \t\n\r\v\f",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}


class PatternError(ValueError):
    """A pattern that names nothing in git; the message says why and what to write instead."""


class Matcher(Protocol):
    """The interface of a compiled regular expression, for patterns that need none."""

    def fullmatch(self, string: str, /) -> object | None:
        """Returns something if the whole text matches."""
        ...


@dataclass(frozen=True, slots=True)
class _Plain:
    """Matches one path, and paths that end in a certain way: most patterns are a name, or a star with an ending."""

    path: str
    ending: str | None

    def fullmatch(self, string: str, /) -> str | None:
        is_match = string == self.path or (self.ending is not None and string.endswith(self.ending))
        return string if is_match else None


class _Expression:
    """Compiles its regular expression when it is first needed."""

    def __init__(self, expression: str) -> None:
        self._source = expression

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._source, re.DOTALL)

    def fullmatch(self, string: str, /) -> re.Match[str] | None:
        return self._compiled.fullmatch(string)


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnorePattern:
    """A pattern in use.

    Attributes:
        regex: matches in full the paths that the pattern names, without a slash at their end.
        remark: why the pattern most likely does not mean what was intended; empty for nothing.
    """

    regex: Matcher
    remark: str = ""

    @classmethod
    def parse(cls, body: str) -> IgnorePattern:
        """Reads a pattern.

        Args:
            body: without `!` before it and without the slash that restricts it to folders.

        Raises:
            PatternError: git skips it, or it is longer than 4,096 characters.
        """
        if len(body) > MAX_CHARS:
            raise PatternError(f"it is longer than {MAX_CHARS} characters; split it")
        if (plain := _plain(body)) is not None:
            return cls(regex=plain)
        reader = _Reader(text=body.removeprefix("/"))
        # Without a slash it is about names in every folder.
        prefix = "" if "/" in body else "(?>(?:.*/)?)"
        return cls(regex=_Expression(prefix + _expression(reader.segments())), remark=reader.remark)


def _plain(body: str) -> Matcher | None:
    """Returns what matches a pattern without wildcards, or with one star that begins it; None for any other."""
    anywhere = body.removeprefix("**/")
    if anywhere != body and anywhere.startswith("/"):
        return None
    if _WILDCARD.search(anywhere) is None:
        is_deep = anywhere != body or "/" not in body
        return _Plain(anywhere.removeprefix("/"), f"/{anywhere}" if is_deep else None)
    ending = anywhere.removeprefix("*")
    is_ending = ending and ending != anywhere and "/" not in ending and _WILDCARD.search(ending) is None
    return _Plain(ending, ending) if is_ending else None


@dataclass(slots=True, kw_only=True)
class _Reader:
    """Reads a pattern from left to right.

    Attributes:
        text: the pattern.
        at: where reading is.
        remark: see `IgnorePattern`.
    """

    text: str
    at: int = 0
    remark: str = ""

    def segments(self) -> list[list[str]]:
        """Returns what stands between slashes: expressions of single characters, and stars."""
        segments: list[list[str]] = [[]]
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == "/":
                self.at += 1
                segments.append([])
            elif character == "*":
                stars = self.text[self.at :]
                stars = stars[: len(stars) - len(stars.lstrip("*"))]
                self.at += len(stars)
                segments[-1].append(stars)
            else:
                segments[-1].append(self._one(character))
        return segments

    def _one(self, character: str) -> str:
        """Reads what stands for one character of a path."""
        self.at += 1
        if character == "?":
            return _NOT_SLASH
        if character == "[":
            return self._class()
        return re.escape(self._escaped(character))

    def _escaped(self, character: str) -> str:
        if character != "\\":
            return character
        if self.at == len(self.text):
            raise PatternError("it ends with a backslash; write \\\\ for the character itself")
        self.at += 1
        return self.text[self.at - 1]

    def _class(self) -> str:
        """Reads `[...]`, from after the bracket."""
        negated = self._next("[") in {"!", "^"}
        self.at += negated
        members, before = "", ""
        character = self._next("[")
        while True:
            self.at += 1
            if character == "-" and before and self._next("[") != "]":
                self.at += 1
                members += self._range(before, self._escaped_in_class(self.text[self.at - 1]))
                before = ""
            elif character == "[" and (name := self._class_name()) is not None:
                members += re.escape(_CLASSES[name])
                before = ""
            else:
                before = self._escaped_in_class(character)
                members += re.escape(before)
            character = self._next("[")
            if character == "]":
                self.at += 1
                return f"(?!/)[{'^' if negated else ''}{members}]"

    def _next(self, opened: str) -> str:
        if self.at >= len(self.text):
            raise PatternError(f"{opened} has no closing ]; write \\{opened} for the character itself")
        return self.text[self.at]

    def _escaped_in_class(self, character: str) -> str:
        if character == "\\":
            self._next("[")
        return self._escaped(character)

    def _class_name(self) -> str | None:
        """Reads `:name:]`, from after the bracket; None where none stands there."""
        if self._next("[") != ":":
            return None
        end = self.text.find("]", self.at + 1)
        if end < 0:
            raise PatternError("[ has no closing ]; write \\[ for the character itself")
        name = self.text[self.at + 1 : end - 1]
        if end - self.at < 2 or self.text[end - 1] != ":":
            return None
        if name not in _CLASSES:
            raise PatternError(f"there is no class [:{name[:20]}:]; there are {', '.join(_CLASSES)}")
        self.at = end + 1
        return name

    def _range(self, low: str, high: str) -> str:
        if low > high:
            self.remark = f"the range {low}-{high} names {low} only; write {high}-{low}"
            return ""
        return f"{re.escape(low)}-{re.escape(high)}"


def _expression(segments: list[list[str]]) -> str:
    done: list[str] = []
    # Segments since the last one that is any number of folders, or since the beginning.
    chunk: list[str] = []
    after_folders = ""
    for segment in segments[:-1]:
        if not _is_deep(segment):
            chunk.append(f"{_segment(segment)}/")
            continue
        # The first place after `**/` leaves the most for what follows.
        done.append(f"(?>{after_folders}?{''.join(chunk)})" if after_folders and chunk else "".join(chunk))
        chunk, after_folders = [], _FOLDERS
    if not _is_deep(segments[-1]):
        return "".join([*done, after_folders, *chunk, _segment(segments[-1])])
    lazy = f"(?>{after_folders}?{''.join(chunk)})" if after_folders else "".join(chunk)
    return "".join([*done, lazy, ".+"])


def _is_deep(segment: list[str]) -> bool:
    return len(segment) == 1 and segment[0].startswith("**")


def _segment(segment: list[str]) -> str:
    runs = [""]
    for part in segment:
        if part.startswith("*"):
            runs.append("")
        else:
            runs[-1] += part
    first, *others = runs
    if not others:
        return first
    # No name is empty.
    start = first or f"(?={_NOT_SLASH})"
    return start + "".join(f"(?>{_NOT_SLASH}*?{run})" for run in others[:-1]) + f"{_NOT_SLASH}*{others[-1]}"
