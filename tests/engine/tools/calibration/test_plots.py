"""The plots show every bin, the figures in the title, and the chosen threshold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dgemma_engine.tools.calibration.plots import draw_coverage, draw_reliability
from dgemma_engine.tools.calibration.reliability import Reliability, reliability
from dgemma_engine.tools.calibration.threshold import choose_threshold, coverage_curve
from numpy.typing import NDArray

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the figures that are saved."""
    figure_type = pytest.importorskip("matplotlib.figure", reason="plots need the train extra: not checked").Figure
    figures: list[Any] = []
    save = figure_type.savefig

    def recording(self: Any, *args: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(figure_type, "savefig", recording)
    return figures


def judged(scale: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.bool_], Reliability]:
    generator = np.random.default_rng(0)
    predictions = scale * generator.random(400)
    right = generator.random(400) < predictions
    return predictions, right, reliability(predictions, right)


def test_reliability_diagram_shows_every_bin_and_its_interval(tmp_path: Path, drawn: list[Any]) -> None:
    predictions, _, result = judged()
    assert draw_reliability(result, predictions, tmp_path / "reliability.png", title="Candidates")
    assert (tmp_path / "reliability.png").read_bytes().startswith(PNG)
    upper, lower = drawn[0].axes
    title = upper.get_title()
    assert f"ECE {result.calibration_error:.3f}" in title and "n = 400" in title and "Candidates" in title
    (bars,) = upper.containers
    points, _, (segments,) = bars.lines
    assert points.get_ydata() == pytest.approx([each.observed for each in result.bins])
    spans = [(segment[0][1], segment[1][1]) for segment in segments.get_segments()]
    assert spans == [pytest.approx(each.interval) for each in result.bins]
    assert sum(patch.get_height() for patch in lower.patches) == 400
    assert upper.get_ylabel() and lower.get_xlabel() and lower.get_ylabel()


def test_axes_fit_small_probabilities(tmp_path: Path, drawn: list[Any]) -> None:
    predictions, _, result = judged(scale=0.1)
    draw_reliability(result, predictions, tmp_path / "reliability.png", title="Candidates")
    assert drawn[0].axes[0].get_xlim()[1] <= 0.4


def test_no_prediction_is_outside_the_axes(tmp_path: Path, drawn: list[Any]) -> None:
    predictions, right, _ = judged(scale=0.1)
    predictions[0] = 0.77
    draw_reliability(reliability(predictions, right), predictions, tmp_path / "reliability.png", title="Candidates")
    assert drawn[0].axes[0].get_xlim()[1] == pytest.approx(0.8)
    assert sum(patch.get_height() for patch in drawn[0].axes[1].patches) == 400


def test_coverage_diagram_marks_the_choice(tmp_path: Path, drawn: list[Any]) -> None:
    predictions, right, _ = judged()
    points = coverage_curve(predictions, right, num_silent=100)
    choice = choose_threshold(points, target=0.7)
    assert draw_coverage(points, choice, tmp_path / "coverage.png", title="Holes")
    assert (tmp_path / "coverage.png").read_bytes().startswith(PNG)
    (axes,) = drawn[0].axes
    marked = axes.lines[-1]
    assert marked.get_xydata()[0] == pytest.approx([100 * choice.point.coverage, 100 * choice.point.precision])
    assert f"threshold {choice.point.threshold:.3f}" in marked.get_label()
    assert "n = 500 holes" in axes.get_title()


def test_coverage_diagram_states_that_the_target_was_not_reached(tmp_path: Path, drawn: list[Any]) -> None:
    points = coverage_curve([0.5, 0.25], [1, 0])
    draw_coverage(points, choose_threshold(points, target=0.9, min_shown=2), tmp_path / "coverage.png", title="Holes")
    assert "target not reached" in drawn[0].axes[0].lines[-1].get_label()


def test_without_matplotlib_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    predictions, right, result = judged()
    points = coverage_curve(predictions, right)
    assert not draw_reliability(result, predictions, tmp_path / "reliability.png", title="Candidates")
    assert not draw_coverage(points, choose_threshold(points), tmp_path / "coverage.png", title="Holes")
    assert not list(tmp_path.iterdir())
