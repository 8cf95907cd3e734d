"""The patterns of one ignore file, in the syntax of `.gitignore`: text -> which entry of a tree which line names.

Pure. An entry is looked at on its own; that everything below a named folder is named too is the caller's walk from the
top down, as git does it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

# What a regular expression tries grows with the power of its wildcards: a pattern with more is made a wider one.
_MOST_STARS = 3
_ANY_DEPTH = re.compile(r"^/?(?:\*\*/)+(?=.)")
_STARS = re.compile(r"\*+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of an ignore file.

    Attributes:
        text: the line as it stands there.
        names: whether it names entries; False takes back what a line above named.
        folders_only: whether it is about folders only.
        regex: matches an entry up to its end; None is every entry.
    """

    text: str
    names: bool
    folders_only: bool
    regex: re.Pattern[str] | None

    def matches(self, entry: str) -> bool:
        """Whether the line is about `entry` itself, not about a folder that it is in.

        Args:
            entry: path relative to the ignore file's folder; a folder's ends with a slash.
        """
        if self.folders_only and not entry.endswith("/"):
            return False
        if self.regex is None:
            return True
        found = self.regex.match(entry)
        return found is not None and found.end() == len(entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreFile:
    """The lines of one file, in its order; the last one that is about an entry decides."""

    rules: tuple[Rule, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a file; lines that git would pass over are passed over."""
        lines = text.removeprefix("\ufeff").split("\n")
        return cls(rules=tuple(rule for line in lines if (rule := _rule(line.removesuffix("\r")))))

    @classmethod
    def naming_everything(cls, why: str) -> Self:
        """Stands for a file whose lines cannot be known."""
        return cls(rules=(Rule(text=why, names=True, folders_only=False, regex=None),))

    def deciding(self, entry: str) -> Rule | None:
        """Returns the line that decides about an entry, or None.

        Args:
            entry: path relative to the ignore file's folder; a folder's ends with a slash.
        """
        return next((rule for rule in reversed(self.rules) if rule.matches(entry)), None)


def entries_of(path: str) -> list[str]:
    """Returns the folders on the way to a file, outermost first, and the file: `a/b` -> `a/`, `a/b`."""
    parts = [part for part in path.split("/") if part]
    folders = ["/".join(parts[: end + 1]) + "/" for end in range(len(parts) - 1)]
    return [*folders, "/".join(parts)]


def _rule(line: str) -> Rule | None:
    text = _without_trailing_spaces(line)
    if not text or text.startswith("#"):
        return None
    names, body = not text.startswith("!"), text.removeprefix("!")
    bounded = _bounded(body)
    if bounded != body and not names:
        # A wider pattern would take back more than the line says.
        return None
    folders_only = bounded.endswith("/")
    every = _ANY_DEPTH.sub("", bounded).removesuffix("/")
    if every in {"", "*", "**", "/**"}:
        return Rule(text=text, names=names, folders_only=folders_only, regex=None) if bounded != "/" else None
    if bounded.endswith(("/**", "/**/")):
        # Names everything below, not the folder itself.
        bounded += "*/" if folders_only else "/*"
    try:
        pattern = GitIgnoreSpecPattern(bounded)
    except GitIgnorePatternError:
        return None
    if pattern.regex is None or pattern.include is None:
        return None
    return Rule(text=text, names=names, folders_only=folders_only, regex=re.compile(pattern.regex.pattern, re.DOTALL))


def _without_trailing_spaces(line: str) -> str:
    kept = line.rstrip(" ")
    escaped = len(kept) < len(line) and (len(kept) - len(kept.rstrip("\\"))) % 2 == 1
    return f"{kept} " if escaped else kept


def _bounded(pattern: str) -> str:
    """Returns a pattern with few wildcards that names all that the given one names."""
    segments = pattern.split("/")
    doubles = [index for index, segment in enumerate(segments) if segment == "**"]
    if len(doubles) > _MOST_STARS:
        segments[doubles[1] : doubles[-1] + 1] = ["**"]
    return "/".join(_bounded_segment(segment) for segment in segments)


def _bounded_segment(segment: str) -> str:
    stars = list(_STARS.finditer(segment))
    if len(stars) <= _MOST_STARS or "[" in segment or "\\" in segment:
        return segment if len(stars) <= _MOST_STARS else "*"
    return f"{segment[: stars[0].start()]}*{segment[stars[-1].end() :]}"
