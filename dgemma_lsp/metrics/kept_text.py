"""How much of an inserted text still stands: characters in, number of characters out. Pure, bounded.

Characters count as kept where they stand in the same order in runs of at least three, found by `difflib`; a run of one
or two is chance. What a person wrote in between does not count against the text.
"""

from __future__ import annotations

import difflib

_MIN_RUN = 3
_MOST_SEARCHED = 100
# Comparing takes time that grows with the square; what is longer is counted from its first characters.
_MAX_CHARS = 250


def num_kept(inserted: str, now: str) -> int:
    """Returns how many characters of `inserted` still stand in `now`.

    Args:
        inserted: as it was accepted.
        now: what stands in its place.
    """
    if not inserted or inserted in now[: _MOST_SEARCHED * _MAX_CHARS + len(inserted)]:
        return len(inserted)
    looked_at = inserted[:_MAX_CHARS]
    matcher = difflib.SequenceMatcher(None, looked_at, now[: 2 * _MAX_CHARS], autojunk=False)
    shortest = min(_MIN_RUN, len(inserted))
    kept = sum(block.size for block in matcher.get_matching_blocks() if block.size >= shortest)
    return round(kept * len(inserted) / len(looked_at))


def is_kept(inserted: str, now: str) -> bool:
    """Whether at least half of the characters of `inserted` still stand in `now`."""
    return 2 * num_kept(inserted, now) >= len(inserted)
