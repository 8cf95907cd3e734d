"""Exact and near duplicates among source files, judged one file at a time in the order they come.

A file's fingerprint is a sample of the hashes of every three consecutive lines (winnowing by residue): a file most of
whose sample was seen before is a copy with edits. Memory is bounded by the lines of the corpus over `_KEEP_ONE_IN`.
"""

from __future__ import annotations

from zlib import crc32

from dgemma_engine.tools.corpus.filters import Rejection
from dgemma_engine.tools.corpus.stable_hash import stable_hash

_LINES = 3
_KEEP_ONE_IN = 4
_MIN_SAMPLE = 4


class Duplicates:
    """Rejects copies of the files that it has accepted.

    Args:
        max_overlap: share of a file's sample that may have been seen; 0 rejects any file that shares three lines with
            an earlier one, 1 rejects exact copies only.
    """

    def __init__(self, max_overlap: float = 0.6) -> None:
        if not 0 <= max_overlap <= 1:
            raise ValueError(f"{max_overlap=} must be between 0 and 1")
        self._max_overlap = max_overlap
        self._texts: set[int] = set()
        self._shingles: set[int] = set()

    def rejection(self, text: str) -> Rejection | None:
        """Returns DUPLICATE, NEAR_DUPLICATE or None; stores `text` only when it is None."""
        key = stable_hash(text)
        if key in self._texts:
            return Rejection.DUPLICATE
        sample = _sample(text)
        if len(sample) >= _MIN_SAMPLE and len(sample & self._shingles) > self._max_overlap * len(sample):
            return Rejection.NEAR_DUPLICATE
        self._texts.add(key)
        self._shingles |= sample
        return None


def _sample(text: str) -> set[int]:
    lines = [stripped for line in text.splitlines() if len(stripped := line.strip()) > 3]
    hashes = [crc32(line.encode("utf-8", "replace")) for line in lines]
    shingles = (hash(triple) for triple in zip(*(hashes[i:] for i in range(_LINES)), strict=False))
    return {shingle for shingle in shingles if shingle % _KEEP_ONE_IN == 0}
