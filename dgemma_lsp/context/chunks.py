"""Text -> overlapping chunks of 60 lines, and how many words each shares with the text around a cursor. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHUNK_LINES = 60

_STRIDE_LINES = 20
_MOST_LINES = 8_000
_MOST_CHARS = 4_000
_AROUND_LINES = 30
_AROUND_CHARS = 8_000
_WORD = re.compile(r"[^\W\d]\w{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some lines of a text.

    Attributes:
        start_line: first line, counted from 0.
        text: the lines.
        words: what they are compared by.
    """

    start_line: int
    text: str
    words: frozenset[str]


def chunks_of(text: str) -> Iterator[Chunk]:
    """Yields chunks of at most 60 lines, one beginning every 20; each step costs little.

    Lines after the 8,000th and chunks of more than 4,000 characters (long lines are seldom written by hand) are left
    out.
    """
    lines = text.split("\n", _MOST_LINES)[:_MOST_LINES]
    last = max(0, len(lines) - CHUNK_LINES)
    # Chunks overlap: each word is stored once.
    spelled: dict[str, str] = {}
    for start in (*range(0, last, _STRIDE_LINES), last):
        taken = lines[start : start + CHUNK_LINES]
        if sum(map(len, taken)) + len(taken) > _MOST_CHARS + 1:
            continue
        chosen = "\n".join(taken)
        if words := words_of(chosen):
            shared = frozenset(spelled.setdefault(word, word) for word in words)
            yield Chunk(start_line=start, text=chosen, words=shared)


def around(text: str, offset: int) -> str:
    """Returns the lines next to a cursor: 30 before its line, its line, 30 after it; of long lines the nearest part."""
    before = text[max(0, offset - _AROUND_CHARS) : offset].rsplit("\n", _AROUND_LINES + 1)
    behind = text[offset : offset + _AROUND_CHARS].split("\n", _AROUND_LINES + 1)
    return "\n".join(before[-_AROUND_LINES - 1 :]) + "\n".join(behind[: _AROUND_LINES + 1])


def words_of(text: str) -> frozenset[str]:
    """Returns the different words of at least three characters."""
    return frozenset(_WORD.findall(text))


def similarity(first: frozenset[str], second: frozenset[str]) -> float:
    """Returns the Jaccard index: 0 for no word in common, 1 for the same words."""
    common = len(first & second)
    return common / (len(first) + len(second) - common) if common else 0.0


def best_chunk(chunks: Sequence[Chunk], words: frozenset[str], *, most_similar: float) -> tuple[float, Chunk] | None:
    """Returns the chunk that shares most with the surroundings of the cursor, and how much.

    Args:
        chunks: of one text, in its order.
        words: of the surroundings.
        most_similar: a chunk above it repeats the surroundings: neither it nor a chunk that overlaps it is taken.
            0 takes nothing, 1 everything.

    Returns:
        None where nothing is shared.
    """
    scores = [similarity(chunk.words, words) for chunk in chunks]
    echoes = [chunk.start_line for chunk, score in zip(chunks, scores, strict=True) if score > most_similar]
    rest = [
        (score, chunk)
        for score, chunk in zip(scores, chunks, strict=True)
        if score > 0 and all(abs(chunk.start_line - echo) >= CHUNK_LINES for echo in echoes)
    ]
    # Of equals the first, so that the choice depends on the text alone.
    return max(rest, key=lambda pair: pair[0], default=None)
