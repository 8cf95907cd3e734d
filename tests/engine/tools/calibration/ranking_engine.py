"""A fake engine that has the files holes are cut from, and records its requests."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.features import Features
from dgemma_engine.infill.candidate import Proposal, Ranked
from dgemma_engine.infill.length_search import LengthReading, grid, surroundings_prior
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.protocol.messages import CandidateSource, Context, Extent
from dgemma_engine.scheduling.timing import Cancel


@dataclass
class RankingEngine:
    """Proposes the truth in half of the holes, nothing in a tenth; a token is a word.

    Right candidates have more agreement but a lower likelihood than wrong ones, so only learnt
    weights rank them first.
    """

    texts: Sequence[str]
    model_name: str = "known"
    device: str = "cpu"
    asked: list[tuple[Context, InfillOptions]] = field(default_factory=list[tuple[Context, InfillOptions]])
    measured: list[tuple[Context, tuple[int, ...]]] = field(default_factory=list[tuple[Context, tuple[int, ...]]])
    loaded_with: list[Calibration] = field(default_factory=list[Calibration])

    def truth(self, context: Context) -> str:
        before, after = context.prefix, context.suffix
        [text] = {text for text in self.texts if text.startswith(before) and text.endswith(after)}
        return text[len(before) : len(text) - len(after)]

    def ranked(self, context: Context, cancel: Cancel, *, options: InfillOptions) -> list[Ranked]:
        assert cancel.left_s > 100
        self.asked.append((context, options))
        draw = Random(context.prefix + "|" + context.suffix)
        if draw.random() < 0.1:
            return []
        texts = [f"wrong_{number}" for number in range(3)]
        if draw.random() < 0.5:
            texts.append(self.truth(context) + "  ")
        ranked = [self._ranked(text, draw) for text in texts]
        # A candidate that was not scored in time has no features.
        return [*ranked, Ranked(proposal=Proposal(text="late", source=CandidateSource.SEED), score=1.0, features=None)]

    def _ranked(self, text: str, draw: Random) -> Ranked:
        is_right = not text.startswith("wrong")
        mean = draw.gauss(-2.5 if is_right else -2.0, 0.5)
        features = Features(
            middle_mean=mean,
            middle_sum=mean * 5,
            suffix_mean=draw.gauss(-1.0, 0.5),
            canvas_mean=draw.gauss(-2.0, 0.5),
            on_canvas=1.0,
            agreement=float(draw.random() < (0.8 if is_right else 0.1)),
        )
        proposal = Proposal(text=text, source=CandidateSource.DIFFUSION)
        return Ranked(proposal=proposal, score=0.5, features=features)

    def length_reading(self, context: Context, middle: str, cancel: Cancel) -> LengthReading:
        assert cancel.left_s > 100
        assert context.extent is Extent.LINE
        assert middle == self.truth(context)
        lengths = grid(Extent.LINE, context.max_middle_tokens)
        self.measured.append((context, lengths))
        true = max(1, self.count_tokens(middle))
        draw = Random(context.prefix)
        # Confidence grows with the length and peaks at the true length.
        confidences = {
            length: [
                0.4 * math.log(length) + max(0.0, 1 - abs(math.log(length / true))) + draw.gauss(0, 0.05)
                for _ in range(2)
            ]
            for length in lengths
        }
        prior = surroundings_prior(
            lengths, context.prefix, context.suffix, extent=Extent.LINE, count_tokens=self.count_tokens
        )
        return LengthReading(true_length=true, confidences=confidences, prior=prior)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def install(engine: RankingEngine | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `Engine.load` return this engine for any folder, or fail for None."""

    class Engine:
        @staticmethod
        def load(
            _path: Path, *, device: str, report: Callable[[int, str], None], calibration: Calibration
        ) -> RankingEngine:
            assert engine is not None
            engine.loaded_with.append(calibration)
            report(100, f"ready on {device}")
            return engine

    module = ModuleType("dgemma_engine.infill.engine")
    monkeypatch.setattr(module, "Engine", Engine, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
