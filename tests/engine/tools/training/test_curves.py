"""The plot of a run: evaluations are drawn at their own position, also between logged points."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.tools.training.curves import CurvePoint, Curves, Evaluation


def curves() -> Curves:
    points = [
        CurvePoint(
            step=step, minutes=step / 10, tokens=1_000 * step, holes=step, slot=3.0, causal=4.0, balance=1.0,
            grad_norm=1.0, lr_scale=1.0, tokens_per_s=100.0,
        )
        for step in (20, 40)
    ]  # fmt: skip
    evaluations = [
        Evaluation(step=step, minutes=1.0, slot=3.0, slot_full_noise=5.0, causal=4.0) for step in (7, 33, 47)
    ]
    return Curves(points, evaluations)


@pytest.mark.parametrize(("step", "tokens"), [(0, 0), (7, 7_000), (20, 20_000), (33, 33_000), (47, 40_000)])
def test_tokens_at_interpolates_between_points(step: int, tokens: int) -> None:
    assert curves().tokens_at(step) == tokens


def test_every_evaluation_is_plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: dict[str, int] = {}
    plot = Axes.plot

    def recording(self: Axes, x: list[float], y: list[float], *args: object, **options: object) -> object:
        drawn[str(options["label"])] = len(x)
        return plot(self, x, y, *args, **options)

    monkeypatch.setattr(Axes, "plot", recording)
    curves().save(tmp_path)
    assert drawn["slot, held out"] == drawn["slot from noise alone, held out"] == 3
    assert (tmp_path / "curves.png").stat().st_size > 1_000


def test_curves_survive_json() -> None:
    assert Curves.from_dict(curves().to_dict()) == curves()
