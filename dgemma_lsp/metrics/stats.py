"""Counts and times of completions, bounded in size: numbers and names, never text. Two can be merged into one.

Times fall into buckets that grow by a tenth, so a quantile is off by 5 % at most. Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self, cast

VERSION = 1
JUDGED_AFTER_S = (30, 300)

TOTAL = "total"
_MAX_STAGES = 16
_FIRST_MS, _GROWTH, _MAX_BUCKET = 0.05, 1.1, 180
_MAX_COUNT = 2**53


class Source(StrEnum):
    """What answered a request: all of them but `ENGINE` need no work of the engine for it."""

    TYPED_THROUGH = "typed_through"
    """The rest of the suggestion shown last."""
    CACHE = "store"
    """An earlier answer, or one that was prepared."""
    IN_FLIGHT = "flight"
    """The work on an earlier request, which was continued."""
    ENGINE = "engine"
    """A request to the engine of its own."""
    NOT_ASKED = "not_asked"
    """Nothing: after a deletion, without an engine, in a private file, switched off."""


COUNTS = (
    *("requests", "requests_answered_with_text", "suggestions", "displayed", "accepted"),
    *("partly_accepted", "characters_accepted", "steps", "used_steps"),
    *(f"answered_by_{source}" for source in Source),
    *(f"{what}_{after_s}_s" for after_s in JUDGED_AFTER_S for what in ("judged", "kept")),
    *(f"characters_{what}_{after_s}_s" for after_s in JUDGED_AFTER_S for what in ("judged", "kept")),
)


class Stats:
    """The totals. `since` is the date of the first event, as `2026-11-21`; empty as long as there is none."""

    def __init__(self, *, since: str = "") -> None:
        self.since = since
        self.counts: Counter[str] = Counter()
        self.times: dict[str, Counter[int]] = {}

    def __bool__(self) -> bool:
        return bool(self.counts or self.times)

    def add(self, counts: Mapping[str, int], stages_ms: Mapping[str, float]) -> None:
        """Adds counts, and the times of one answer with text.

        Args:
            counts: by name; those that are not in `COUNTS` are left out.
            stages_ms: milliseconds by stage; may be empty.
        """
        for name, count in counts.items():
            if name in COUNTS:
                self.counts[name] += count
        for stage, spent_ms in stages_ms.items():
            growths = math.log(spent_ms / _FIRST_MS) / math.log(_GROWTH) if spent_ms > _FIRST_MS else 0
            self._buckets(stage)[int(min(growths, _MAX_BUCKET))] += 1

    def merge(self, other: Stats) -> None:
        """Adds what `other` counted."""
        self.since = min(filter(None, (self.since, other.since)), default="")
        self.counts.update(other.counts)
        for stage, buckets in other.times.items():
            self._buckets(stage).update(buckets)

    def quantile_ms(self, stage: str, share: float) -> float | None:
        """Returns the time that `share` of the answers with text did not exceed, or None where there are none.

        Args:
            stage: stage of the work up to ghost text; `total` is all of it.
            share: 0 to 1.
        """
        buckets = self.times.get(stage, Counter())
        missing = share * buckets.total()
        for bucket in sorted(buckets):
            missing -= buckets[bucket]
            if missing <= 0 and buckets[bucket]:
                return _FIRST_MS * _GROWTH ** (bucket + 0.5)
        return None

    def to_json(self) -> dict[str, Any]:
        """Returns the object that is stored on disk."""
        times = {
            stage: {str(bucket): count for bucket, count in sorted(buckets.items())}
            for stage, buckets in sorted(self.times.items())
        }
        counts = {name: self.counts[name] for name in COUNTS if self.counts[name]}
        return {"version": VERSION, "since": self.since, "counts": counts, "times": times}

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """Reads the object that is stored on disk.

        Raises:
            ValueError: it was not written by this version.
        """
        if not isinstance(raw, Mapping):
            raise ValueError(f"statistics must be an object, not {type(raw).__name__}")
        kept = cast("Mapping[str, Any]", raw)
        if kept.get("version") != VERSION:
            raise ValueError(f"statistics of version {str(kept.get('version'))[:20]} cannot be read, only of {VERSION}")
        stats = cls(since=str(kept.get("since", ""))[:10])
        for name, count in _numbers(kept.get("counts")).items():
            if name in COUNTS:
                stats.counts[name] = count
        times = kept.get("times")
        for stage, buckets in cast("Mapping[str, object]", times).items() if isinstance(times, Mapping) else ():
            known = {bucket: count for bucket, count in _numbers(buckets).items() if bucket.isdecimal()}
            stats._buckets(stage).update({min(int(bucket), _MAX_BUCKET): count for bucket, count in known.items()})
        return stats

    def _buckets(self, stage: str) -> Counter[int]:
        if stage not in self.times and len(self.times) >= _MAX_STAGES:
            return Counter()
        return self.times.setdefault(stage[:20], Counter())


def _numbers(raw: object) -> dict[str, int]:
    items = cast("Mapping[str, object]", raw).items() if isinstance(raw, Mapping) else ()
    return {name: count for name, count in items if type(count) is int and 0 <= count < _MAX_COUNT}
