"""What an answer says that the lines below the cursor say already.

Pure. The engine cuts such copies before it ranks; this holds what is shown to it after indentation and block have been
put right.
"""

from __future__ import annotations

from dgemma_lsp.postprocess.cursor_context import Around

_BRACKETS = " \t()[]{};,"


def without_next_lines(middle: str, around: Around) -> str:
    """Drops the end of `middle` from the line on where it says again what the lines below the cursor say.

    Indentation counts. The last of several such lines may have been cut short by the answer's end. A line of brackets
    alone stands twice in good code too; `brackets` knows whether it may.

    Args:
        middle: what is to be inserted at the cursor.
        around: where.
    """
    below = [line.rstrip() for line in around.lines_below if line.strip()]
    lines = (around.before + middle).split("\n")
    for index, line in enumerate(lines):
        if not line.strip(_BRACKETS):
            continue
        tail = [line.rstrip() for line in lines[index:] if line.strip()]
        if _is_copy(tail, below[: len(tail)]) and (index > 0 or not around.rest.strip()):
            kept = "\n".join(lines[:index])
            return kept[len(around.before) :] if index else ""
    return middle


def _is_copy(said: list[str], below: list[str]) -> bool:
    if said == below:
        return True
    if len(said) < 2 or len(said) != len(below):
        return False
    return said[:-1] == below[:-1] and below[-1].startswith(said[-1])
