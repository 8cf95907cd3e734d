"""Counts and times of completions: events go in, totals come out; two of them add up to one. No text, bounded in size.

Times fall into buckets that grow by a tenth, so a quantile is off by 5 % at most. Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self, cast

from dgemma_lsp.metrics.events import Accepted, Answered, Event, Judged, Source, StepsSpent, StepsUsed, Suggested

VERSION = 1
JUDGED_AFTER_S = (30, 300)

TOTAL = "total"
_MAX_STAGES = 16
_FIRST_MS, _GROWTH, _MAX_BUCKET = 0.05, 1.1, 180
_MAX_COUNT = 2**53

COUNTS = (
    *("requests", "requests_answered_with_text", "suggestions", "accepted", "partly_accepted"),
    *("characters_accepted", "steps", "used_steps"),
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

    def add(self, event: Event) -> None:
        """Counts one event."""
        match event:
            case Answered():
                self._add_answer(event)
            case StepsSpent():
                self.counts["steps"] += event.steps
            case StepsUsed():
                self.counts["used_steps"] += event.steps
            case Suggested():
                self.counts["suggestions"] += 1
            case Accepted():
                self.counts["partly_accepted" if event.partly else "accepted"] += 1
                self.counts["characters_accepted"] += event.characters
            case Judged():
                ending = f"{event.after_s}_s"
                self.counts[f"judged_{ending}"] += 1
                self.counts[f"kept_{ending}"] += event.kept
                self.counts[f"characters_judged_{ending}"] += event.characters
                self.counts[f"characters_kept_{ending}"] += event.characters_kept

    def merge(self, other: Stats) -> None:
        """Adds what `other` counted."""
        self.since = min(filter(None, (self.since, other.since)), default="")
        self.counts.update(other.counts)
        for stage, buckets in other.times.items():
            self._buckets(stage).update(buckets)

    def quantile_ms(self, stage: str, share: float) -> float | None:
        """Returns the time that `share` of the answers with text did not exceed, or None where there are none.

        Args:
            stage: part of the way to ghost text; `total` is all of it.
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
        """Returns what is kept on disk."""
        times = {
            stage: {str(bucket): count for bucket, count in sorted(buckets.items())}
            for stage, buckets in sorted(self.times.items())
        }
        counts = {name: self.counts[name] for name in COUNTS if self.counts[name]}
        return {"version": VERSION, "since": self.since, "counts": counts, "times": times}

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """Reads what was kept on disk.

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

    def _add_answer(self, event: Answered) -> None:
        self.counts.update({"requests": 1, f"answered_by_{event.source}": 1})
        self.counts["requests_answered_with_text"] += event.shown
        if event.shown:
            for stage, spent_ms in ({TOTAL: event.total_ms} | dict(event.stages_ms)).items():
                self._buckets(stage)[_bucket(spent_ms)] += 1

    def _buckets(self, stage: str) -> Counter[int]:
        if stage not in self.times and len(self.times) >= _MAX_STAGES:
            return Counter()
        return self.times.setdefault(stage[:20], Counter())


def _bucket(spent_ms: float) -> int:
    if not spent_ms > _FIRST_MS:
        return 0
    return int(min(math.log(spent_ms / _FIRST_MS) / math.log(_GROWTH), _MAX_BUCKET))


def _numbers(raw: object) -> dict[str, int]:
    items = cast("Mapping[str, object]", raw).items() if isinstance(raw, Mapping) else ()
    return {name: count for name, count in items if type(count) is int and 0 <= count < _MAX_COUNT}
