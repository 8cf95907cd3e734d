"""Infill -> Completion: what of the engine's text is shown, and which part of the line it replaces.

Pure. The span is one line only, from the line's start to the cursor plus what the completion covers of the rest: every
client draws that without flicker. An answer not worth showing gives None.
"""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.messages import Extent, Infill

from dgemma_lsp.context import extent_of
from dgemma_lsp.overlap import num_covered
from dgemma_lsp.request import Request

_CHARS_BELOW = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Text to show, where it goes, and for which version of the document it holds.

    Attributes:
        text: replaces the span; begins with the line's text left of the cursor; line ends are `\\n`.
        start: offset of the line's start, in code points.
        cursor: offset of the cursor.
        end: offset behind the covered part of the line's rest.
        version: the document's version that the offsets hold for.
    """

    text: str
    start: int
    cursor: int
    end: int
    version: int

    def __post_init__(self) -> None:
        if not self.start <= self.cursor <= self.end:
            raise ValueError(f"{self.start=} <= {self.cursor=} <= {self.end=} must hold")

    @property
    def inserted(self) -> str:
        """What follows the cursor."""
        return self.text[self.cursor - self.start :]


def build_completion(request: Request, infill: Infill) -> Completion | None:
    """Returns what to show at the cursor, or None.

    Args:
        request: the question, with the text it was asked about.
        infill: the engine's answer to it.
    """
    middle = infill.text.replace("\r\n", "\n").replace("\r", "\n")
    one_line = extent_of(request) is Extent.LINE
    middle = middle.partition("\n")[0] if one_line else _cut_at_dedent(middle, request.before)
    middle = _without_repeated_lines(middle, request)
    covered = num_covered(before=request.before, middle=middle, rest=request.rest)
    if not request.rest[covered:].strip():
        middle, covered = middle.rstrip(), len(request.rest[:covered].rstrip())
    if not middle.strip() or middle == request.rest[:covered]:
        return None
    return Completion(
        text=request.before + middle,
        start=request.line_start,
        cursor=request.offset,
        end=request.offset + covered,
        version=request.version,
    )


def _cut_at_dedent(middle: str, before: str) -> str:
    """Cuts before the first line that leaves the cursor's block, or that begins another paragraph at its level.

    Behind what opens a block (`def f():`), what stands at that line's own indentation has left the block.
    """
    base = _indent(before)
    opens_block = bool(before.strip())
    lines = middle.split("\n")
    first_body = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    for index in range(1, len(lines)):
        line = lines[index]
        if not line.strip():
            continue
        outside = _indent(line) < base or (opens_block and _indent(line) == base and not _closes(line))
        new_paragraph = index > first_body and _indent(line) <= base and not lines[index - 1].strip()
        if outside or new_paragraph:
            return "\n".join(lines[:index])
    return middle


def _without_repeated_lines(middle: str, request: Request) -> str:
    """Drops the end of `middle` from the line on where it says again what the lines below the cursor say."""
    following = request.text[request.line_end : request.line_end + _CHARS_BELOW]
    below = [line.rstrip() for line in following.splitlines() if line.strip()]
    lines = (request.before + middle).split("\n")
    for index, line in enumerate(lines):
        # A line of brackets alone stands twice in good code too.
        if not any(character.isalnum() for character in line):
            continue
        tail = [line.rstrip() for line in lines[index:] if line.strip()]
        if tail == below[: len(tail)] and (index > 0 or not request.rest.strip()):
            kept = "\n".join(lines[:index])
            return kept[len(request.before) :] if index else ""
    return middle


def _indent(line: str) -> int:
    expanded = line.expandtabs(8)
    return len(expanded) - len(expanded.lstrip(" "))


def _closes(line: str) -> bool:
    return line.lstrip()[:1] in {")", "]", "}"}
