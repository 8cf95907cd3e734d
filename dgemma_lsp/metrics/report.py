"""Totals -> the output of `dgemma-lsp stats`: figures as JSON, or lines for a person."""

from __future__ import annotations

from typing import Any

from dgemma_lsp.metrics.stats import JUDGED_AFTER_S, TOTAL, Source, Stats

# In the order of the stages up to ghost text; others come last.
_STAGES = (
    *(TOTAL, "server", "start", "wait", "context"),
    *("engine", "queue", "others", "tokenize", "encode", "propose", "denoise", "rank"),
)


def to_figures(stats: Stats) -> dict[str, Any]:
    """Returns every figure under its name; a share of nothing is None."""
    counts = stats.counts
    asked = counts["requests"] - counts[f"answered_by_{Source.NOT_ASKED}"]
    wasted = max(counts["steps"] - counts["used_steps"], 0)
    stages = sorted(stats.times, key=lambda stage: (_STAGES.index(stage) if stage in _STAGES else 99, stage))
    return {
        "since": stats.since,
        "requests": counts["requests"],
        "answered_with_text": counts["requests_answered_with_text"],
        "answered_without_engine_share": _share(asked - counts[f"answered_by_{Source.ENGINE}"], asked),
        "shown": counts["suggestions"],
        "displayed": counts["displayed"],
        "accepted": counts["accepted"],
        "partly_accepted": counts["partly_accepted"],
        "accepted_share": _share(counts["accepted"], counts["suggestions"]),
        "characters_accepted": counts["characters_accepted"],
        "kept": {f"{after_s}_s": _kept(stats, after_s) for after_s in JUDGED_AFTER_S},
        "steps": counts["steps"],
        "wasted_steps": wasted,
        "wasted_steps_share": _share(wasted, counts["steps"]),
        "ms": {
            stage: {f"p{percent}": _rounded(stats.quantile_ms(stage, percent / 100)) for percent in (50, 95)}
            for stage in stages
        },
    }


def to_lines(stats: Stats) -> str:
    """Returns the figures for a person."""
    if not stats:
        return "Nothing was counted yet."
    figures = to_figures(stats)
    rows = [
        f"since {figures['since']}",
        f"requests answered       {figures['requests']}, {_percent(figures['answered_without_engine_share'])} "
        "without the engine",
        f"suggestions shown       {figures['shown']}",
        f"accepted                {figures['accepted']} ({_percent(figures['accepted_share'])}), "
        f"in part {figures['partly_accepted']}; {figures['characters_accepted']} characters",
    ]
    for after_s in JUDGED_AFTER_S:
        kept = figures["kept"][f"{after_s}_s"]
        rows.append(
            f"kept after {after_s:>3} s        {kept['kept']} of {kept['looked_at']} looked at; "
            f"{_percent(kept['characters_share'])} of their characters"
        )
    rows.append(
        f"denoising steps         {figures['steps']}, {_percent(figures['wasted_steps_share'])} for nothing shown"
    )
    if figures["ms"]:
        rows.append("time to ghost text          p50       p95")
        rows += [f"  {stage:<20}{times['p50']:>8} {times['p95']:>9} ms" for stage, times in figures["ms"].items()]
    return "\n".join(rows)


def _kept(stats: Stats, after_s: int) -> dict[str, Any]:
    counts = stats.counts
    characters, kept = counts[f"characters_judged_{after_s}_s"], counts[f"characters_kept_{after_s}_s"]
    return {
        "looked_at": counts[f"judged_{after_s}_s"],
        "kept": counts[f"kept_{after_s}_s"],
        "characters_kept": kept,
        "characters_share": _share(kept, characters),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"
