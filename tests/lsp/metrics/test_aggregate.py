from __future__ import annotations

import json
import random

import pytest

from dgemma_lsp.metrics.aggregate import Stats
from dgemma_lsp.metrics.events import Accepted, Answered, Event, Judged, Source, StepsSpent, StepsUsed, Suggested
from dgemma_lsp.metrics.report import to_figures, to_lines

EVENTS: list[Event] = [
    Answered(source=Source.ENGINE, shown=True, total_ms=100.0, stages_ms={"denoise": 60.0, "server": 5.0}),
    StepsSpent(steps=4),
    StepsUsed(steps=4),
    Answered(source=Source.ENGINE, shown=False, total_ms=900.0),
    Answered(source=Source.NOT_ASKED, shown=False, total_ms=0.1),
    StepsSpent(steps=6),
    Answered(source=Source.TYPED_THROUGH, shown=True, total_ms=0.2),
    Answered(source=Source.STORE, shown=True, total_ms=0.4),
    StepsSpent(steps=2),
    Suggested(),
    Suggested(),
    Accepted(partly=False, characters=12),
    Accepted(partly=True, characters=5),
    Judged(after_s=30, kept=True, characters=12, characters_kept=9),
    Judged(after_s=300, kept=False, characters=12, characters_kept=0),
]


def counted(events: list[Event], *, since: str = "2026-11-21") -> Stats:
    stats = Stats(since=since)
    for event in events:
        stats.add(event)
    return stats


def test_figures():
    figures = to_figures(counted(EVENTS))
    assert figures["requests"] == 5
    assert figures["answered_with_text"] == 3
    assert figures["answered_without_engine_share"] == 0.5
    assert (figures["shown"], figures["accepted"], figures["partly_accepted"]) == (2, 1, 1)
    assert figures["accepted_share"] == 0.5
    assert figures["characters_accepted"] == 17
    assert figures["kept"]["30_s"] == {"looked_at": 1, "kept": 1, "characters_kept": 9, "characters_share": 0.75}
    assert figures["kept"]["300_s"] == {"looked_at": 1, "kept": 0, "characters_kept": 0, "characters_share": 0.0}
    assert (figures["steps"], figures["wasted_steps"], figures["wasted_steps_share"]) == (12, 8, 0.6667)
    assert list(figures["ms"]) == ["total", "server", "denoise"]
    assert figures["ms"]["denoise"]["p50"] == pytest.approx(60, rel=0.05)


def test_answers_with_nothing_to_show_have_no_time_to_ghost_text():
    assert counted([EVENTS[3]]).quantile_ms("total", 0.5) is None


def test_quantiles_are_within_five_percent():
    rng = random.Random(3)
    times = [rng.lognormvariate(4, 1.5) for _ in range(2_000)]
    stats = counted([Answered(source=Source.ENGINE, shown=True, total_ms=spent) for spent in times])
    for share in (0.05, 0.5, 0.95):
        assert stats.quantile_ms("total", share) == pytest.approx(sorted(times)[round(share * 2_000)], rel=0.06)


def test_merging_is_counting_together():
    first, second = counted(EVENTS[:5], since="2026-11-22"), counted(EVENTS[5:])
    first.merge(second)
    assert first.to_json() == counted(EVENTS).to_json()


def test_round_trip_through_json():
    stats = counted(EVENTS)
    assert Stats.from_json(json.loads(json.dumps(stats.to_json()))).to_json() == stats.to_json()


def test_size_is_bounded():
    rng = random.Random(5)
    stats = Stats()
    for index in range(5_000):
        stages = {f"stage {index}": rng.expovariate(0.01), "x" * 1_000: 1.0}
        stats.add(Answered(source=Source.ENGINE, shown=True, total_ms=rng.lognormvariate(4, 4), stages_ms=stages))
    assert len(json.dumps(stats.to_json())) < 60_000


@pytest.mark.parametrize("value", [0.0, -1.0, 1e300, float("inf"), float("nan")])
def test_odd_times_are_counted(value: float):
    stats = counted([Answered(source=Source.ENGINE, shown=True, total_ms=value)])
    assert stats.quantile_ms("total", 0.5) is not None


@pytest.mark.parametrize("raw", [None, [], {}, {"version": 2}, {"version": "x" * 999}])
def test_other_versions_are_refused(raw: object):
    with pytest.raises(ValueError, match="statistics"):
        Stats.from_json(raw)


def test_odd_entries_are_passed_over():
    counts = {"requests": 3, "steps": -1, "accepted": "many", "unknown": 4, "suggestions": True}
    raw = {"version": 1, "since": 7, "counts": counts, "times": {"total": {"3": 1, "x": 1, "99999": 2}, "y": 4}}
    stats = Stats.from_json(raw)
    assert dict(stats.counts) == {"requests": 3}
    assert stats.times["total"] == {3: 1, 180: 2}


def test_lines_for_a_person():
    lines = to_lines(counted(EVENTS)).splitlines()
    assert lines[0] == "since 2026-11-21"
    assert "50 % without the engine" in lines[1]
    assert "1 of 1 looked at; 75 % of their characters" in lines[4]
    assert to_lines(Stats()) == "Nothing was counted yet."
    assert "none" in to_lines(counted([Suggested()]))
