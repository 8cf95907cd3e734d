"""What an answer says for the third time: once by itself, twice or more with the lines above the cursor.

Pure. The engine cuts what repeats itself within an answer; here the document counts, too.
"""

from __future__ import annotations

import re

from dgemma_lsp.postprocess.cursor_context import Around

_LETTER = re.compile(r"[^\W\d_]")
_LINES_ABOVE = 32
_LONGEST_UNIT = 8
_COPIES = 3
# Tables and lists of equal items are written by people.
_COPIES_OF_ITEMS = 6


def without_repetition(middle: str, around: Around) -> str:
    """Cuts `middle` before the line or group of lines that would stand there once too often.

    Three equal ones behind each other are too many, six of a list. What has no letters may recur, and so may what the
    user has begun to type.

    Args:
        middle: what is to be inserted at the cursor.
        around: where.
    """
    if around.rest.strip():
        return middle
    above = [line.rstrip() for line in around.lines_above[-_LINES_ABOVE:]]
    said = (around.before + middle).split("\n")
    lines = above + [line.rstrip() for line in said]
    first = len(above) + bool(around.before.strip())
    for end in range(first + 1, len(lines) + 1):
        for size in range(1, min(_LONGEST_UNIT, end - first) + 1):
            unit = lines[end - size : end]
            copies = _COPIES_OF_ITEMS if unit and unit[-1].endswith(",") else _COPIES
            if end < size * copies or not unit[-1] or not _LETTER.search("\n".join(unit)):
                continue
            if all(lines[end - size * (copy + 1) : end - size * copy] == unit for copy in range(1, copies)):
                kept = "\n".join(said[: end - size - len(above)])
                return kept[len(around.before) :].rstrip()
    return middle
