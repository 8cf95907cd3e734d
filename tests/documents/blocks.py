"""Fenced blocks of the documents, the commands in them, and commands inline in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("README.md", "docs/*.md", "docs/clients/*.md", "docs/features/*.md", "editors/*/README.md")
    for page in ROOT.glob(pattern)
)
# First words of shell commands; other blocks without a language are drawings or output.
_PROGRAMS = ("dgemma-", "make ", "pip ", "python ", "ssh ", "curl ", "mkdir ", "printf ")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        place: page and line, for a test's name.
        language: as it is written after the fence; empty for shells and drawings.
        text: all lines.
    """

    place: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What a reader types, without prompts and comments."""
        if self.language:
            return []
        lines = self.text.splitlines()
        typed = [line[2:] for line in lines if line.startswith("$ ")]
        if not typed:
            typed = [line for line in lines if line.startswith(_PROGRAMS)]
        return [line.partition("  #")[0].partition(" # ")[0].strip() for line in typed]


def blocks() -> Iterator[Block]:
    """Returns the fenced blocks of all pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(f"{page.relative_to(ROOT)}:{line}", found[1], found[2])


def inline_commands() -> Iterator[tuple[str, str]]:
    """Returns page and text of each `dgemma-engine` and `dgemma-lsp` with arguments that is inline in the text."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for found in re.finditer(r"`(dgemma-(?:engine|lsp) [^`]+)`", text):
            yield str(page.relative_to(ROOT)), " ".join(found[1].split())
