"""The record of a run: losses over steps and evaluations, as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np

from dgemma_engine.durable_files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Means over some steps.

    Attributes:
        step: last of them.
        minutes: spent training by then.
        tokens: prompt, slot and canvas tokens so far.
        holes: holes so far.
        slot: loss in nats.
        causal: next-token loss in nats.
        balance: 1 when the experts are used evenly.
        grad_norm: before clipping.
        lr_scale: of the last step.
        tokens_per_s: since the point before.
        tflops: useful arithmetic since the point before, in 10^12 operations a second; 0 in runs that began before it
            was recorded.
    """

    step: int
    minutes: float
    tokens: int
    holes: int
    slot: float
    causal: float
    balance: float
    grad_norm: float
    lr_scale: float
    tokens_per_s: float
    tflops: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Losses on held-out holes.

    Attributes:
        step: when.
        minutes: spent training by then.
        slot: in nats, self-conditioned.
        slot_full_noise: in nats, from noise alone and without self-conditioning: the first step of the engine.
        causal: next-token loss in nats.
    """

    step: int
    minutes: float
    slot: float
    slot_full_noise: float
    causal: float


@dataclass(slots=True)
class Curves:
    """Points so far, oldest first."""

    points: list[CurvePoint] = field(default_factory=list[CurvePoint])
    evaluations: list[Evaluation] = field(default_factory=list[Evaluation])

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-ready dict."""
        return {
            "points": [asdict(point) for point in self.points],
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Reads `to_dict`'s result."""
        return cls(
            [CurvePoint(**point) for point in values["points"]],
            [Evaluation(**evaluation) for evaluation in values["evaluations"]],
        )

    def tokens_at(self, step: int) -> float:
        """Returns the tokens seen by `step`, between the points that were logged."""
        steps, tokens = [0], [0]
        for point in self.points:
            steps.append(point.step)
            tokens.append(point.tokens)
        return float(np.interp(step, steps, tokens))

    def save(self, folder: Path) -> None:
        """Writes `curves.json`, and `curves.png` where matplotlib is installed.

        Raises:
            OSError: one cannot be written; the last one is untouched.
        """
        write_whole(folder / "curves.json", (json.dumps(self.to_dict(), indent=1) + "\n").encode())
        if self.points:
            self._draw(folder / "curves.png")

    def _draw(self, path: Path) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            return
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        tokens = [point.tokens / 1e6 for point in self.points]
        axes.plot(tokens, [point.slot for point in self.points], label="slot, training", color="C0", alpha=0.6)
        axes.plot(tokens, [point.causal for point in self.points], label="causal, training", color="C1", alpha=0.6)
        shown = self.evaluations
        at = [self.tokens_at(evaluation.step) / 1e6 for evaluation in shown]
        axes.plot(at, [e.slot for e in shown], "o-", label="slot, held out", color="C0")
        axes.plot(at, [e.causal for e in shown], "o-", label="causal, held out", color="C1")
        axes.plot(at, [e.slot_full_noise for e in shown], "o-", label="slot from noise alone, held out", color="C2")
        axes.set_xlabel("million tokens")
        axes.set_ylabel("nats per token")
        axes.grid(alpha=0.3)
        axes.legend()
        picture = BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        write_whole(path, picture.getvalue())
