"""What a model wrote into a hole, cut to what may be offered at the cursor: text to text."""

from __future__ import annotations

from dgemma_engine.postprocess.truncation import cut_repetition, cut_to_line, drop_suffix_copy, trim_overlap
from dgemma_engine.tokenization.token_healing import Boundary, trimmed


def offered(text: str, boundary: Boundary, *, prefix: str, suffix: str, one_line: bool) -> str:
    """Returns the text to insert, or nothing where the middle cannot be shown.

    Args:
        text: the middle as its tokens spell it.
        boundary: where its hole was; the middle has to begin and end with what was taken off there.
        prefix: text before the cursor.
        suffix: text after the cursor.
        one_line: whether the middle ends with its line.
    """
    insertion = trimmed(text, boundary)
    if insertion is None:
        return ""
    if one_line:
        insertion = cut_to_line(insertion)
    insertion = cut_repetition(trim_overlap(drop_suffix_copy(insertion, suffix), prefix=prefix, suffix=suffix))
    # U+FFFD stands for a character cut in two: no text the user could want.
    return "" if not insertion.strip() or "\ufffd" in insertion else insertion
