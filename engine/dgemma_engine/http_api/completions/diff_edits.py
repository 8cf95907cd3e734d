"""A unified diff -> the edits of a `Context`: for each hunk the lines that begin with `-` or `+`. Pure."""

from __future__ import annotations

from dgemma_engine.protocol.messages import Snippet

_MOST_HUNKS = 8


def edits_of(path: str, diff: str) -> tuple[Snippet, ...]:
    """Returns the last eight hunks of a diff, in its order.

    Args:
        path: of the document that was changed.
        diff: unified; what stands before its first `@@` line is its head.
    """
    hunks: list[list[str]] = []
    for line in diff.splitlines():
        if line.startswith("@@"):
            hunks.append([])
        elif hunks and line[:1] in ("-", "+"):
            hunks[-1].append(line)
    return tuple(Snippet(path=path, text="\n".join(lines) + "\n") for lines in hunks if lines)[-_MOST_HUNKS:]
