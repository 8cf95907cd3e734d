"""Steps whose next canvas is made before the host has their scores: same tokens, the same canvases for observers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graphs import Graphs, repeat
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_graphs import StepGraphs
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, ScoredStep, denoise
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.model.ops import Ops

from tests.engine.backends.test_graph_executor import CPU, NOTHING, SAMPLER, check, prompt, unhurried
from tests.engine.fused_models import load, write

ROWS = [Row(num_free=9, head_ids=(31, 32), seed=1), Row(num_free=4, seed=2), Row(num_free=6, seed=5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FusedModel:
    fused = load(write(tmp_path_factory.mktemp("model")), Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(fused, FusedModel)
    return fused


class Watching:
    """Keeps the canvas that each step scored, its distributions, and the one made of it."""

    def __init__(self) -> None:
        self.scored_ids: list[list[int]] = []
        self.likeliest: list[list[int]] = []
        self.renoised_ids: list[list[int]] = []

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        self.scored_ids.append(executor.tokens()[0].tolist())
        self.likeliest.append(executor.log_probabilities(len(step.live) - 1).argmax(-1).tolist())

    def renoised(self, accepted_RM: torch.Tensor, executor: StepExecutor) -> None:
        self.renoised_ids.append(executor.tokens()[0].tolist() + accepted_RM.flatten().tolist())


def steps_of(model: FusedModel, *, ahead: bool) -> StepGraphs:
    steps = StepGraphs(model, Graphs(repeat))
    steps.renoises_ahead = ahead
    return steps


def denoiser(steps: StepGraphs, observer: Watching | None = None, **options: Any) -> Denoiser:
    canvas = canvases.start(ROWS, SAMPLER.noise, CPU)
    executor = GraphExecutor(steps, prompt(steps.model, 21), canvas, SAMPLER, suppressed_ids=NOTHING, **options)
    return Denoiser(executor, SAMPLER, observer=observer)


def together(runs: list[Denoiser], patience: int) -> list[Denoised]:
    """Runs denoisers in turns of `patience` pieces of work."""
    waiting = [
        (index, denoise(run, cancel=unhurried(), on_step=lambda _run: None, choose=two_of_them))
        for index, run in enumerate(runs)
    ]
    done = dict[int, Denoised]()
    while waiting:
        index, work = waiting.pop(0)
        try:
            for _ in range(patience):
                next(work)
        except StopIteration as end:
            done[index] = end.value
        else:
            waiting.append((index, work))
    return [done[index] for index in range(len(runs))]


def two_of_them(run: Denoiser) -> list[int]:
    return run.live[1:]


@pytest.mark.parametrize("patience", [1, 2, 100])
def test_interleaved_runs_give_the_same_tokens(model: FusedModel, patience: int) -> None:
    expected = together([denoiser(steps_of(model, ahead=False))], 1)[0]
    steps = steps_of(model, ahead=True)
    for got in together([denoiser(steps), denoiser(steps)], patience):
        check(got, expected)


def test_block_before_the_canvas_gives_the_same_tokens(model: FusedModel) -> None:
    got, expected = (
        together([denoiser(steps_of(model, ahead=ahead), block_ids=[4, 9, 2])], 1)[0] for ahead in (True, False)
    )
    check(got, expected)


def test_observer_sees_the_canvas_that_was_scored(model: FusedModel) -> None:
    seen = list[Watching]()
    for ahead in (False, True):
        seen.append(Watching())
        together([denoiser(steps_of(model, ahead=ahead), seen[-1])], 1)
    plain, early = seen
    assert len(plain.scored_ids) > 2 and len({tuple(ids) for ids in plain.scored_ids}) > 2
    assert early.scored_ids == plain.scored_ids
    assert early.likeliest == plain.likeliest and early.renoised_ids == plain.renoised_ids


def test_next_canvas_is_made_before_the_scores_are_read_except_in_the_last_step(
    model: FusedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = list[str]()
    steps = steps_of(model, ahead=True)

    def logged(name: str) -> Callable[..., Any]:
        original = getattr(steps, name)
        return lambda *arguments: [log.append(name), original(*arguments)][1]

    for name in ("forward", "renoise"):
        monkeypatch.setattr(steps, name, logged(name))
    run = denoiser(steps)
    score = run._executor.score  # type: ignore[reportPrivateUsage]
    monkeypatch.setattr(run._executor, "score", lambda: [log.append("score"), score()][1])  # type: ignore[reportPrivateUsage]
    run.num_steps = 2
    run._sampler = replace(SAMPLER, stop=replace(SAMPLER.stop, confidence=1e-9))  # type: ignore[reportPrivateUsage]
    with torch.inference_mode():
        run.step()
        run.advance(run.live)
        run.step()
    assert log == ["forward", "renoise", "score", "forward", "score"]
