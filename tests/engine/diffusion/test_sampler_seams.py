"""Policies defined here run in the engine's denoising loop without a change to it, eager and captured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graphs import Graphs, repeat
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_graphs import StepGraphs
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, RowSelection, ScoredStep, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import EntropyBound, PositionScores, Sampler, TemperatureSchedule, UniformNoise
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Finish
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from torch import Tensor

from tests.engine.fused_models import VOCAB, draw_ids, load, write

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
MASK = 17
NOTHING = torch.tensor([], dtype=torch.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorbingMask:
    """Noise is one token, which no step may propose."""

    mask_id: int

    @property
    def suppressed_ids(self) -> Sequence[int]:
        return (self.mask_id,)

    def draw(self, num_rows: int, length: int, generator: torch.Generator) -> Tensor:
        return torch.full((num_rows, length), self.mask_id, device=generator.device)

    def committed(self, ids: Tensor) -> Tensor:
        return ids != self.mask_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverRemask:
    """Committed tokens stay; a number of the surest masked positions join them."""

    num_tokens: int

    def accept(self, scores: PositionScores) -> Tensor:
        assert scores.committed_RM is not None
        is_open_RM = scores.valid_RM & ~scores.committed_RM
        entropy_RM = scores.entropy_RM.masked_fill(~is_open_RM, torch.inf)
        rank_RM = entropy_RM.argsort(-1).argsort(-1)
        return scores.committed_RM | (is_open_RM & (rank_RM < self.num_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingMasked:
    """Stops a row that holds no mask."""

    num_earlier: int = 0

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        assert not earlier and scores.committed_RM is not None
        return (scores.committed_RM | ~scores.valid_RM).all(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersOnlySeenBefore:
    """Stops a row whose answer equals that of two steps before, whatever stood between."""

    num_earlier: int = 2

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        if len(earlier) < 2:
            return torch.zeros(len(scores.best_RM), dtype=torch.bool)
        return ((earlier[0] == scores.best_RM) | ~scores.valid_RM).all(-1)


class Shortest:
    """Lets the row with the fewest free positions go on."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __call__(self, denoiser: Denoiser) -> list[int]:
        return [min(denoiser.live, key=lambda index: self.rows[index].num_free)]


class Watch:
    """Checks the scores of each step, and records every canvas after renoising."""

    def __init__(self) -> None:
        self.canvases: list[list[int]] = []

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        for place, num_free in enumerate(step.num_free):
            logprobs_MV = executor.log_probabilities(place)
            assert logprobs_MV.shape == (num_free, VOCAB)
            answer_M = step.scores.best_RM[place, :num_free]
            probability_M = logprobs_MV.gather(-1, answer_M[:, None])[:, 0].exp()
            assert executor.confidence(place) == pytest.approx(probability_M.tolist(), abs=1e-4)

    def renoised(self, accepted_RM: Tensor, executor: StepExecutor) -> None:
        ids_L = executor.tokens()[0]
        self.canvases.append(ids_L.tolist())
        valid_RM = executor.layout.valid_RM
        free_RM = ids_L[executor.layout.free_RM]
        assert torch.equal((free_RM != MASK) & valid_RM, accepted_RM.cpu() & valid_RM)


MASKED = Sampler(
    num_steps=30,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=NeverRemask(num_tokens=2),
    noise=AbsorbingMask(mask_id=MASK),
    stop=NothingMasked(),
)
ROWS = [
    Row(num_free=7, head_ids=(31, 32), seed=1),
    Row(num_free=4, opening_ids=(9,), seed=2, first_ids=(60, 61)),
    Row(num_free=2, seed=3),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[DiffusionModel, FusedModel]:
    folder = write(tmp_path_factory.mktemp("model"))
    fused = load(folder, Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(fused, FusedModel)
    return load(folder, Ops.reference(), torch.float32, CPU), fused


def prompt(model: DiffusionModel) -> PromptCache:
    cache = PromptCache(model.config, capacity=100, dtype=torch.float32, device=CPU)
    with torch.inference_mode():
        model.prefill(draw_ids(1, 21, CPU), cache)
    return cache


def run(
    executor: StepExecutor, sampler: Sampler, watch: Watch | None = None, choose: RowSelection | None = None
) -> Denoised:
    denoiser = Denoiser(executor, sampler, observer=watch)
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    return finished(denoise(denoiser, cancel=cancel, on_step=lambda _denoiser: None, choose=choose))


def eager(
    model: DiffusionModel, sampler: Sampler, watch: Watch | None = None, choose: RowSelection | None = None
) -> Denoised:
    canvas = canvases.start(ROWS, sampler.noise, CPU)
    return run(EagerExecutor(model, prompt(model), canvas, sampler, suppressed_ids=NOTHING), sampler, watch, choose)


def captured(graphs: StepGraphs, sampler: Sampler, watch: Watch | None = None) -> Denoised:
    canvas = canvases.start(ROWS, sampler.noise, CPU)
    cache = prompt(graphs.model)
    return run(GraphExecutor(graphs, cache, canvas, sampler, suppressed_ids=NOTHING), sampler, watch)


def plainly(model: DiffusionModel, row: Row) -> tuple[list[int], int]:
    """One row of the masked sampler, written out: tokens and steps."""
    cache, generator = prompt(model), torch.Generator().manual_seed(row.seed)
    opening, head = list(row.opening_ids), list(row.head_ids)
    middle, soft, first = [MASK] * row.num_free, None, len(opening)
    if row.warm_ids:
        middle[: len(row.warm_ids)] = row.warm_ids
    for step in range(1, 31):
        canvas = torch.tensor([[*opening, *middle, *head]])
        logits_LV = model.logits(model.decode(canvas, cache, soft_BLD=soft))[0]
        logits_LV[:, MASK] = -1e9
        if row.first_ids is not None:
            logits_LV[first, [token for token in range(VOCAB) if token not in row.first_ids]] = -1e9
        probs_LV = (logits_LV / (0.4 + 0.4 * (31 - step) / 30)).softmax(-1)
        if MASK not in middle:
            return middle, step
        levels = torch.rand(len(row.positions()), generator=generator)
        entropy = torch.special.entr(probs_LV).sum(-1)
        masked = sorted((i for i, token in enumerate(middle) if token == MASK), key=lambda i: float(entropy[first + i]))
        for i in masked[:2]:
            cumulative = probs_LV[first + i].cumsum(-1)
            middle[i] = int((cumulative > levels[first + i] * cumulative[-1]).nonzero()[0])
        soft = model.soft_embeddings(probs_LV[None])
    raise AssertionError("a mask is left")


@torch.inference_mode()
def test_absorbing_mask_fills_every_position_once(models: tuple[DiffusionModel, FusedModel]) -> None:
    watch = Watch()
    done = eager(models[0], MASKED, watch)
    assert done.finish is Finish.STABLE
    assert [done.guesses[index].steps for index in range(3)] == [5, 3, 2]
    for index, row in enumerate(ROWS):
        assert (done.guesses[index].ids, done.guesses[index].steps) == plainly(models[0], row)
        assert MASK not in done.guesses[index].ids
    for before, after in zip(watch.canvases, watch.canvases[1:], strict=False):
        if len(before) == len(after):
            assert all(old in (MASK, new) for old, new in zip(before, after, strict=True))


@torch.inference_mode()
def test_captured_steps_take_the_same_policies(models: tuple[DiffusionModel, FusedModel]) -> None:
    expected = eager(models[0], MASKED)
    graphs = StepGraphs(models[1], Graphs(repeat))
    for watch in (None, None, Watch()):
        got = captured(graphs, MASKED, watch)
        assert (got.steps, got.finish) == (expected.steps, expected.finish)
        for index, guess in expected.guesses.items():
            assert (got.guesses[index].ids, got.guesses[index].steps) == (guess.ids, guess.steps)
            assert got.guesses[index].confidence == pytest.approx(guess.confidence, abs=1e-3)


def test_stop_rule_of_this_module_runs_eager_and_captured(models: tuple[DiffusionModel, FusedModel]) -> None:
    sampler = Sampler(
        num_steps=12,
        schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
        acceptance=EntropyBound(bound=2.0),
        noise=UniformNoise(vocab_size=VOCAB),
        stop=AnswersOnlySeenBefore(),
    )
    expected, got = eager(models[0], sampler), captured(StepGraphs(models[1], Graphs(repeat)), sampler)
    assert min(guess.steps for guess in expected.guesses.values()) >= 3
    assert expected.steps < 12
    ends: Any = lambda done: {index: (guess.ids, guess.steps) for index, guess in done.guesses.items()}  # noqa: E731
    assert ends(got) == ends(expected)


@torch.inference_mode()
def test_row_selection_of_this_module_runs(models: tuple[DiffusionModel, FusedModel]) -> None:
    done = eager(models[0], MASKED, choose=Shortest(ROWS))
    assert [done.guesses[index].steps for index in range(3)] == [1, 1, 2]
    assert done.guesses[2].ids == eager(models[0], MASKED).guesses[2].ids
