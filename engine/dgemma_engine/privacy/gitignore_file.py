"""The patterns of one ignore file, in the syntax of `.gitignore`: text -> the line that names an entry of a tree.

Pure. An entry is judged on its own; for files below a named folder the caller walks from the top down, as git does.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from dgemma_engine.privacy.gitignore_pattern import IgnorePattern, Matcher, PatternError

# As many as one setting may hold; settings are checked several times on their way.
_MOST_PROBLEMS = 1_000
# Each is compared with every folder of every path.
_MOST_LINES = 5_000
# Syntax of other programs that git does not have: a pattern with it names nothing in practice.
_FOREIGN = (
    (re.compile(r"\{[^{},]*+,[^{}]*+\}"), "braces stand for themselves; write a pattern for each name"),
    (re.compile(r"[;,]\s*+[!*./]"), "one entry is one pattern; write an entry for each"),
    (re.compile(r"^\s"), "the blank in front belongs to the name; remove it"),
    (re.compile(r"\\[\w.*-]"), "a backslash only protects the next character; write / between folders"),
    (re.compile(r"^!?(?:\$\w+/|\$\{|%\w+%|~[^/*?$]+/)"), "variables and ~name are not replaced; write the path"),
)


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
    regex: Matcher | None

    def matches(self, entry: str) -> bool:
        """Whether the line is about `entry` itself, not about a folder that it is in.

        Args:
            entry: path relative to the ignore file's folder; a folder's ends with a slash.
        """
        if self.folders_only and not entry.endswith("/"):
            return False
        return self.regex is None or self.regex.fullmatch(entry.removesuffix("/")) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """A line that most likely does not mean what its author intended.

    Attributes:
        line: its number, from 1.
        text: the line.
        reason: why, and what to write instead.
        is_used: whether the line counts as git reads it; else it is skipped.
    """

    line: int
    text: str
    reason: str
    is_used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreFile:
    """The lines of one file, in its order; the last one that is about an entry decides."""

    rules: tuple[Rule, ...]
    flaws: tuple[Flaw, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a file; lines that git would skip are skipped, and are in `flaws`."""
        rules: list[Rule] = []
        flaws: list[Flaw] = []
        lines = _composed(text.removeprefix("\ufeff")).split("\n")
        if len(lines) > _MOST_LINES:
            return cls.naming_everything(f"it has more than {_MOST_LINES} lines")
        for number, line in enumerate(lines, start=1):
            kept = _without_trailing_spaces(line.removesuffix("\r"))
            try:
                rule, remark = _rule(kept)
            except PatternError as error:
                flaws.append(Flaw(line=number, text=kept, reason=str(error), is_used=False))
                continue
            if rule is not None:
                rules.append(rule)
            if remark:
                flaws.append(Flaw(line=number, text=kept, reason=remark, is_used=True))
        return cls(rules=tuple(rules), flaws=tuple(flaws))

    @classmethod
    def naming_everything(cls, why: str) -> Self:
        """Returns a file that names everything, in place of one whose lines cannot be known."""
        return cls(rules=(Rule(text=why, names=True, folders_only=False, regex=None),))

    def deciding(self, entry: str) -> Rule | None:
        """Returns the line that decides about an entry, or None.

        Args:
            entry: path relative to the ignore file's folder; a folder's ends with a slash.
        """
        if not self.rules:
            return None
        composed = _composed(entry)
        return next((rule for rule in reversed(self.rules) if rule.matches(composed)), None)


def entries_of(path: str) -> list[str]:
    """Returns the folders on the way to a file, outermost first, and the file: `a/b` -> `a/`, `a/b`."""
    parts = [part for part in path.split("/") if part]
    folders = ["/".join(parts[: end + 1]) + "/" for end in range(len(parts) - 1)]
    return [*folders, "/".join(parts)]


@lru_cache(_MOST_PROBLEMS)
def problem_of(pattern: str) -> str | None:
    """Returns why a pattern names nothing or not what it seems to, and what to write instead; None for a good one."""
    try:
        _, remark = _rule(_composed(pattern))
    except PatternError as error:
        return str(error)
    names = pattern.removeprefix("!").strip("/").split("/")
    if not {"", ".", ".."}.isdisjoint(names):
        return "no path holds //, ./ or ../; write the path without them"
    return remark or next((why for shape, why in _FOREIGN if shape.search(pattern)), None)


def _rule(text: str) -> tuple[Rule | None, str]:
    """Reads a line; returns its rule, and a remark or nothing.

    Raises:
        PatternError: git skips the line.
    """
    body = text.removeprefix("!")
    if text.startswith("#") or body in {"", "/"}:
        return None, ""
    pattern = IgnorePattern.parse(body.removesuffix("/"))
    rule = Rule(text=text, names=body == text, folders_only=body.endswith("/"), regex=pattern.regex)
    return rule, pattern.remark


def _without_trailing_spaces(line: str) -> str:
    kept = line.rstrip(" ")
    escaped = len(kept) < len(line) and (len(kept) - len(kept.rstrip("\\"))) % 2 == 1
    return f"{kept} " if escaped else kept


def _composed(text: str) -> str:
    """Returns a text in one of the two spellings that Unicode has for accented letters; file systems differ in it."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
