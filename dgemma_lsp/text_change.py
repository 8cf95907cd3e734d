"""Two versions of a text -> the one stretch in which they differ, and where a marked stretch has moved to. Pure."""

from __future__ import annotations

from dataclasses import dataclass


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
        same = _num_common(old[start:][::-1], new[start:][::-1])
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
    """Returns how many leading characters are the same; compares slices, since a loop is slow in long texts."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
