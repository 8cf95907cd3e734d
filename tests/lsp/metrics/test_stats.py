from __future__ import annotations

import json
import random

import pytest

from dgemma_lsp.metrics.report import to_figures, to_lines
from dgemma_lsp.metrics.stats import Stats

COUNTS: list[dict[str, int]] = [
    {"requests": 3, "answered_by_engine": 2, "answered_by_not_asked": 1, "requests_answered_with_text": 1},
    {"requests": 2, "answered_by_typed_through": 1, "answered_by_store": 1, "requests_answered_with_text": 2},
    {"steps": 4, "used_steps": 4},
    {"steps": 6},
    {"steps": 2, "unknown": 9},
    {"suggestions": 1},
    {"suggestions": 1, "accepted": 1, "characters_accepted": 12},
    {"partly_accepted": 1, "characters_accepted": 5},
    {"judged_30_s": 1, "kept_30_s": 1, "characters_judged_30_s": 12, "characters_kept_30_s": 9},
    {"judged_300_s": 1, "kept_300_s": 0, "characters_judged_300_s": 12, "characters_kept_300_s": 0},
]
TIMES = [{"total": 100.0, "denoise": 60.0, "server": 5.0}, {"total": 0.2}, {"total": 0.4}]


def counted(
    counts: list[dict[str, int]] = COUNTS, times: list[dict[str, float]] = TIMES, *, since: str = "2026-11-21"
) -> Stats:
    stats = Stats(since=since)
    for one in counts:
        stats.add(one, {})
    for stages_ms in times:
        stats.add({}, stages_ms)
    return stats


def test_figures():
    figures = to_figures(counted())
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
    assert counted(times=[]).quantile_ms("total", 0.5) is None


def test_quantiles_are_within_five_percent():
    rng = random.Random(3)
    times = [rng.lognormvariate(4, 1.5) for _ in range(2_000)]
    stats = counted([], [{"total": spent} for spent in times])
    for share in (0.05, 0.5, 0.95):
        assert stats.quantile_ms("total", share) == pytest.approx(sorted(times)[round(share * 2_000)], rel=0.06)


def test_merging_is_counting_together():
    first, second = counted(COUNTS[:5], TIMES[:1], since="2026-11-22"), counted(COUNTS[5:], TIMES[1:])
    first.merge(second)
    assert first.to_json() == counted().to_json()


def test_round_trip_through_json():
    stats = counted()
    assert Stats.from_json(json.loads(json.dumps(stats.to_json()))).to_json() == stats.to_json()


def test_size_is_bounded():
    rng = random.Random(5)
    stats = Stats()
    for index in range(5_000):
        stages = {f"stage {index}": rng.expovariate(0.01), "x" * 1_000: 1.0}
        stats.add({}, {"total": rng.lognormvariate(4, 4)} | stages)
    assert len(json.dumps(stats.to_json())) < 60_000


@pytest.mark.parametrize("value", [0.0, -1.0, 1e300, float("inf"), float("nan")])
def test_odd_times_are_counted(value: float):
    stats = counted([], [{"total": value}])
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


def test_report_in_lines():
    lines = to_lines(counted()).splitlines()
    assert lines[0] == "since 2026-11-21"
    assert "50 % without the engine" in lines[1]
    assert "1 of 1 looked at; 75 % of their characters" in lines[4]
    assert to_lines(Stats()) == "Nothing was counted yet."
    assert "none" in to_lines(counted([{"suggestions": 1}], []))
