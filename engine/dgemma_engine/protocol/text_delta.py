"""A text as changes of an earlier one: pieces that are copied from it, and new pieces. Pure.

A common beginning and end are found at once, and so is the text after a few typed characters. The part between is
searched for blocks of the earlier text, so that of a window that moves over a document, or of snippets that change
places, only the new text is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

Piece = str | tuple[int, int]
"""New text, or start and length of text that is copied, in characters."""

_BLOCK_CHARS = 32
# A copied piece costs about this many characters of JSON: a shorter one is sent as text.
_LEAST_COPIED_CHARS = 16


def delta(base: str, new: str) -> list[Piece]:
    """Returns the pieces that `new` consists of; `apply_delta` joins them.

    Args:
        base: the earlier text.
        new: the text.
    """
    num_before = num_common(base, new, min(len(base), len(new)))
    num_after = _num_common_end(base, new, min(len(base), len(new)) - num_before)
    if num_before < _LEAST_COPIED_CHARS:
        num_before = 0
    if num_after < _LEAST_COPIED_CHARS:
        num_after = 0
    pieces: list[Piece] = [(0, num_before)] if num_before else []
    end, typed = len(new) - num_after, _typed(base, new, num_before)
    if typed is not None:
        at, start = typed
        length = num_common(base[start:], new[at:], end - at)
        pieces += [new[num_before:at]] * (at > num_before) + [(start, length)]
        num_before = at + length
    pieces += _between(base, new[num_before:end])
    if num_after:
        pieces.append((len(base) - num_after, num_after))
    return pieces


def length_of(pieces: Sequence[Piece]) -> int:
    """Returns the length of the text that pieces make, in characters."""
    return sum(len(piece) if isinstance(piece, str) else piece[1] for piece in pieces)


def apply_delta(base: str, pieces: Sequence[Piece]) -> str:
    """Returns the text that pieces make.

    Args:
        base: the earlier text.
        pieces: see `Piece`.

    Raises:
        ValueError: a piece is not within the earlier text.
    """
    parts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            parts.append(piece)
            continue
        start, length = piece
        if not (start >= 0 and length >= 0 and start + length <= len(base)):
            raise ValueError(f"piece {start}, {length} must be within the {len(base)} characters of the earlier text")
        parts.append(base[start : start + length])
    return "".join(parts)


def _typed(base: str, new: str, at: int) -> tuple[int, int] | None:
    """Returns where both texts go on alike after a few characters that were typed, or removed, at a place: in the new
    text and in the earlier one. None where they do not, or where nothing is gained by it.
    """
    kept, written = base[at : at + _BLOCK_CHARS], new[at : at + _BLOCK_CHARS]
    if len(kept) < _BLOCK_CHARS or len(written) < _BLOCK_CHARS:
        return None
    for num in range(1, _BLOCK_CHARS):
        if new.startswith(kept, at + num):
            return at + num, at
        if base.startswith(written, at + num):
            return at, at + num
    return None


def _between(base: str, text: str) -> list[Piece]:
    """Returns pieces of a text that has no beginning or end in common with the earlier one."""
    if len(text) < 2 * _BLOCK_CHARS:
        return [text] if text else []
    # Of equal blocks the first one counts.
    blocks: dict[str, int] = {}
    for start in range(0, len(base) - _BLOCK_CHARS + 1, _BLOCK_CHARS):
        blocks.setdefault(base[start : start + _BLOCK_CHARS], start)
    pieces: list[Piece] = []
    begin = at = 0
    while at + _BLOCK_CHARS <= len(text):
        start = blocks.get(text[at : at + _BLOCK_CHARS])
        if start is None:
            at += 1
            continue
        # The block may have more in common with its place before it, and after it.
        back = _num_common_end(base[:start], text[begin:at], min(start, at - begin))
        length = _BLOCK_CHARS + num_common(base[start + _BLOCK_CHARS :], text[at + _BLOCK_CHARS :], len(text))
        if at - back > begin:
            pieces.append(text[begin : at - back])
        pieces.append((start - back, back + length))
        begin = at = at + length
    if begin < len(text):
        pieces.append(text[begin:])
    return pieces


def num_common(one: str, other: str, most: int) -> int:
    """Returns the number of equal characters at the beginning, at most `most`; by halving, since texts are long."""
    low, high = 0, min(most, len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _num_common_end(one: str, other: str, most: int) -> int:
    """Returns the number of equal characters at the end, at most `most`."""
    low, high = 0, min(most, len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle - 1
    return low
