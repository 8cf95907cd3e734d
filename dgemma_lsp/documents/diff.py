"""Two versions of a text -> the one stretch in which they differ, and where a marked stretch has moved to. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_PIECES = (65_536, 1_024, 32, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChange:
    """`old[start:old_end]` became `new[start:new_end]`; what stands before and behind is the same."""

    start: int
    old_end: int
    new_end: int

    @classmethod
    def between(cls, old: str, new: str) -> TextChange:
        """Returns the shortest stretch that holds all differences; of several the last in the text."""
        start = _num_common(old, new)
        same = _num_common_at_end(old, new, min(len(old), len(new)) - start)
        return cls(start=start, old_end=len(old) - same, new_end=len(new) - same)

    def moved(self, start: int, end: int) -> tuple[int, int]:
        """Returns where `old[start:end]` stands now; what was changed in it counts as part of it."""
        shift = self.new_end - self.old_end
        if self.start >= end:
            return start, end
        if self.old_end <= start:
            return start + shift, end + shift
        return min(start, self.start), end + shift if end >= self.old_end else self.new_end


def _num_common(first: str, second: str) -> int:
    """Returns how many leading characters are the same; compares large pieces first, since most texts are alike."""
    num, most = 0, min(len(first), len(second))
    for size in _PIECES:
        while num + size <= most and first.startswith(second[num : num + size], num):
            num += size
    return num


def _num_common_at_end(first: str, second: str, most: int) -> int:
    """Returns how many of at most `most` last characters are the same."""
    num = 0
    for size in _PIECES:
        while num + size <= most and first.endswith(
            second[len(second) - num - size : len(second) - num], 0, len(first) - num
        ):
            num += size
    return num
