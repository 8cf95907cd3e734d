"""Requests to the engine for a hole, and the data collected from its answers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.infill.options import Decode
from dgemma_engine.protocol.messages import Extent
from dgemma_engine.tools.calibration.collecting import Collected, collect
from dgemma_engine.tools.calibration.samples import Samples, draw_samples
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind

from tests.engine.tools.calibration.ranking_engine import RankingEngine

KINDS = (HoleKind.LINE, HoleKind.REST, HoleKind.MULTILINE)


@pytest.fixture
def engine(tree: Path) -> RankingEngine:
    return RankingEngine([path.read_text() for path in sorted(tree.rglob("*.py"))])


def samples_of(tree: Path, count: int) -> Samples:
    return draw_samples([tree], kinds=KINDS, count=count, globs=["*.py"], seed=0)


def ask(
    engine: RankingEngine,
    samples: Samples,
    lines: list[str] | None = None,
    *,
    has_canvas: bool = True,
    searches_length: bool = False,
) -> Collected:
    said: list[str] = [] if lines is None else lines

    def load(calibration: Calibration) -> RankingEngine:
        engine.loaded_with.append(calibration)
        return engine

    return collect(
        samples.holes,
        load,
        has_canvas=has_canvas,
        searches_length=searches_length,
        seed=3,
        clock=lambda: 0.0,
        report=said.append,
    )


def test_every_hole_is_requested_as_by_an_editor(tree: Path, engine: RankingEngine) -> None:
    samples = samples_of(tree, 20)
    collected = ask(engine, samples)
    assert [context.document for context, _ in engine.asked] == [sample.hole for sample in samples.holes]
    for (context, recipe), sample in zip(engine.asked, samples.holes, strict=True):
        assert (context.prefix, context.suffix, context.path) == (
            sample.task.prefix, sample.task.suffix, sample.task.path,
        )  # fmt: skip
        assert (context.extent, context.seed, context.language) == (sample.task.extent, 3, "python")
        assert (recipe.silence, recipe.decode, recipe.seeds, recipe.fill) == (False, Decode.ALL, True, True)
    assert (collected.model, collected.device) == ("known", "cpu")
    assert engine.loaded_with == [Calibration.default()]


def test_right_candidates_equal_the_truth_up_to_white_space(tree: Path, engine: RankingEngine) -> None:
    samples = samples_of(tree, 50)
    holes = ask(engine, samples).holes
    assert [(hole.hole, hole.kind, hole.file) for hole in holes] == [
        (sample.hole, sample.task.kind, sample.file) for sample in samples.holes
    ]
    # The candidate without features is left out; the truth comes last, with trailing spaces.
    assert {tuple(one.right for one in hole.candidates) for hole in holes} == {
        (), (False,) * 3, (False, False, False, True),
    }  # fmt: skip
    assert {hole.has_truth for hole in holes} == {True, False}


def test_lengths_are_fitted_on_holes_of_one_line(tree: Path, engine: RankingEngine) -> None:
    collected = ask(engine, samples_of(tree, 120))
    assert {context.extent for context, _ in engine.measured} == {Extent.LINE}
    assert len(engine.measured) == 96
    assert {lengths for _, lengths in engine.measured} == {(1, 2, 3, 4, 6, 8, 12, 16, 24, 32)}
    assert collected.lengths is not None and not collected.no_lengths
    bias = dict(collected.lengths.bias)
    assert bias[32] - bias[8] == pytest.approx(0.4 * math.log(4), abs=0.1)
    assert collected.lengths.raw_hit_rate < 0.5 < dict(collected.lengths.hit_rates)[collected.lengths.prior_weight]


def test_no_lengths_are_measured_without_a_canvas(tree: Path, engine: RankingEngine) -> None:
    collected = ask(engine, samples_of(tree, 20), has_canvas=False)
    assert engine.measured == []
    assert (collected.lengths, collected.no_lengths) == (None, "the model has no canvas")
    assert len(collected.holes) == 20


def test_too_few_lines_for_lengths_raise_no_error(tree: Path, engine: RankingEngine) -> None:
    collected = ask(engine, samples_of(tree, 10))
    assert collected.lengths is None
    assert "calibrate on more files" in collected.no_lengths
    blocks = draw_samples([tree], kinds=[HoleKind.MULTILINE], count=10, globs=["*.py"], seed=0)
    assert ask(engine, blocks).no_lengths == "0 holes of one line are too few"


def test_a_checkpoint_that_searches_for_the_length_proposes_with_the_fitted_bias(
    tree: Path, engine: RankingEngine
) -> None:
    collected = ask(engine, samples_of(tree, 120), searches_length=True)
    bare, fitted = engine.loaded_with
    assert bare == Calibration.default()
    assert collected.lengths is not None
    assert (fitted.length_bias, fitted.prior_weight) == (collected.lengths.bias, collected.lengths.prior_weight)
    assert fitted.weights is None
    assert len(engine.asked) == 120


def test_progress_is_reported_at_every_tenth(tree: Path, engine: RankingEngine) -> None:
    lines: list[str] = []
    ask(engine, samples_of(tree, 50), lines)
    assert [line.split("%")[0].strip() for line in lines] == [str(percent) for percent in range(10, 101, 10)]
    assert lines[-1] == "100 % (90 of 90 questions asked)"
