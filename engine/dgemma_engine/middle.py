"""The text of a middle, cut to what may be shown: pure functions from text to text."""

from __future__ import annotations


def cut_to_line(text: str) -> str:
    """Returns `text` up to its first line break of any kind."""
    lines = text.splitlines()
    return lines[0] if lines else ""


def drop_suffix_copy(text: str, suffix: str) -> str:
    """Cuts a copy of the suffix's head off the end of `text`.

    A checkpoint that was not trained to fill writes the clamped suffix again into the positions it has to spare. The
    copy may be cut short by the end of the slot; one of less than four visible characters is kept, since closing
    brackets and the like recur by right.

    Args:
        text: what stands in the slot.
        suffix: text after the cursor.
    """
    for start in range(len(text)):
        copy = text[start:]
        if len(copy.strip()) < 4:
            break
        if suffix.startswith(copy) or (suffix and copy.startswith(suffix)):
            return text[:start]
    return text
