"""Pictures of a calibration as PNG files: predicted against observed shares, and what each threshold shows.

Matplotlib comes with the `train` extra and is imported only here; without it nothing is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dgemma_engine.tools.calibration.reliability import Reliability, wilson_interval
from dgemma_engine.tools.calibration.threshold import CoveragePoint, ThresholdChoice

_DPI = 130
_BLUE, _ORANGE, _GREY = "#1f5a96", "#d1662b", "#8a8a8a"


def draw_reliability(result: Reliability, predictions: ArrayLike, path: Path, *, title: str) -> bool:
    """Draws predicted against observed shares, and below how often each probability is predicted.

    Args:
        result: of `reliability` on the same predictions.
        predictions: probabilities, for the histogram.
        path: of the PNG file.
        title: what was predicted, on which holes.

    Returns:
        False where matplotlib is not installed and nothing was drawn.
    """
    figure = _figure(width=6.0, height=7.0)
    if figure is None:
        return False
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    predicted = [each.predicted for each in result.bins]
    observed = [each.observed for each in result.bins]
    intervals = [each.interval for each in result.bins]
    bars = [
        [max(0.0, share - low) for share, (low, _) in zip(observed, intervals, strict=True)],
        [max(0.0, high - share) for share, (_, high) in zip(observed, intervals, strict=True)],
    ]
    limit = _axis_end(max([float(np.max(predictions)), *(high for _, high in intervals)]))
    upper.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1.2, label="perfectly calibrated")
    upper.errorbar(
        predicted, observed, yerr=bars, fmt="o-", color=_BLUE, linewidth=1.4, markersize=5, capsize=3,
        label="candidates in bins of equal count, 95 % interval",
    )  # fmt: skip
    upper.axhline(result.base_rate, color=_ORANGE, linewidth=1.2, linestyle=":", label="share right over all")
    # A little room below 0: a weak model's first bins hold nothing right.
    upper.set(xlim=(0, limit), ylim=(-0.02 * limit, limit), ylabel="observed: share that is right")
    upper.set_title(
        f"{title}\nECE {result.calibration_error:.3f}   Brier {result.brier:.3f}   n = {result.num:,}", fontsize=11
    )
    upper.legend(frameon=False, fontsize=9)
    lower.hist(predictions, bins=40, range=(0, limit), color=_BLUE, alpha=0.75)
    lower.set(xlabel="predicted probability of being right", ylabel="candidates")
    _tidy(upper, lower)
    figure.savefig(path, dpi=_DPI)
    return True


def draw_coverage(points: Sequence[CoveragePoint], choice: ThresholdChoice, path: Path, *, title: str) -> bool:
    """Draws precision against coverage, over all thresholds, and marks the chosen one.

    Args:
        points: of `coverage_curve`.
        choice: of `choose_threshold` on the same points.
        path: of the PNG file.
        title: what was ranked, on which holes.

    Returns:
        False where matplotlib is not installed and nothing was drawn.
    """
    figure = _figure(width=7.0, height=4.6)
    if figure is None:
        return False
    axes = figure.subplots()
    ascending = sorted(points, key=lambda point: point.num_shown)
    coverage = [100 * point.coverage for point in ascending]
    rights = [round(point.precision * point.num_shown) for point in ascending]
    bounds = [wilson_interval(right, point.num_shown) for right, point in zip(rights, ascending, strict=True)]
    axes.fill_between(
        coverage, [100 * low for low, _ in bounds], [100 * high for _, high in bounds],
        color=_BLUE, alpha=0.15, linewidth=0, label="95 % interval",
    )  # fmt: skip
    axes.plot(coverage, [100 * point.precision for point in ascending], color=_BLUE, label="precision")
    axes.axhline(
        100 * choice.target, color=_GREY, linestyle="--", linewidth=1.2, label=f"target {100 * choice.target:g} %"
    )
    chosen = choice.point
    axes.plot(
        [100 * chosen.coverage], [100 * chosen.precision], "o", color=_ORANGE, markersize=8, zorder=5,
        label=f"threshold {chosen.threshold:.3f}: shows {100 * chosen.coverage:.1f} %, "
        f"of those {100 * chosen.precision:.1f} % right"
        + ("" if choice.reached else " (target not reached)"),
    )  # fmt: skip
    axes.set(
        xlim=(0, 100), ylim=(0, 103), xlabel="coverage: holes answered, %", ylabel="precision: right of those shown, %"
    )
    num_holes = round(ascending[-1].num_shown / ascending[-1].coverage)
    axes.set_title(f"{title}\nn = {num_holes:,} holes", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    _tidy(axes)
    figure.savefig(path, dpi=_DPI)
    return True


def _figure(*, width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _axis_end(largest: float) -> float:
    """Returns the tenth above `largest`: a weak model's probabilities fill the picture, too."""
    return min(1.0, max(0.1, math.ceil(10 * largest + 0.2) / 10))


def _tidy(*all_axes: Any) -> None:
    for axes in all_axes:
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
