"""Which executor a run on a card gets; concurrent runs give the tokens that each gives alone."""

from __future__ import annotations

import gc
import itertools
import time

import pytest
import torch
from dgemma_engine.backends.cuda.executors import CudaExecutors
from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.backends.cuda.graphs import Graphs, repeat
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, StableAndConfident, TemperatureSchedule, UniformNoise
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.scheduling.cooperative import Pieces, finished
from dgemma_engine.scheduling.timing import Cancel

from tests.engine.fused_models import VOCAB, draw_ids, load, write

CPU = torch.device("cpu")
NOTHING = torch.tensor([], dtype=torch.int64)
SAMPLER = Sampler(
    num_steps=5,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=EntropyBound(bound=2.0),
    noise=UniformNoise(vocab_size=VOCAB),
    stop=StableAndConfident(num_earlier=1, confidence=0.5),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GraphModel:
    fused = load(write(tmp_path_factory.mktemp("model")), Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(fused, FusedModel)
    return GraphModel(fused, Graphs(repeat))


def prompt(model: GraphModel, number: int) -> PromptCache:
    cache = PromptCache(model.config, capacity=60, dtype=model.dtype, device=CPU)
    with torch.inference_mode():
        model.prefill(draw_ids(number, 11 + 9 * number, CPU), cache)
    return cache


def started(executors: CudaExecutors, cache: PromptCache, number: int = 1) -> StepExecutor:
    rows = [Row(num_free=5 + number, head_ids=(7, 8), seed=number), Row(num_free=3, seed=40 + number)]
    return executors(cache, canvases.start(rows, SAMPLER.noise, CPU), SAMPLER, suppressed_ids=NOTHING)


def test_second_concurrent_run_gets_the_eager_executor(model: GraphModel) -> None:
    executors, mine, theirs = CudaExecutors(model), prompt(model, 1), prompt(model, 2)
    first = started(executors, mine)
    assert isinstance(first, GraphExecutor)
    # The next canvas of the same run does not count as a second run.
    assert isinstance(started(executors, mine), GraphExecutor)
    assert isinstance(started(executors, theirs), EagerExecutor)
    del first
    gc.collect()
    assert isinstance(started(executors, theirs), GraphExecutor)


def begun(model: GraphModel, executors: CudaExecutors, number: int) -> Pieces[Denoised]:
    denoiser = Denoiser(started(executors, prompt(model, number), number), SAMPLER)
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    return denoise(denoiser, cancel=cancel, on_step=lambda _denoiser: None)


def test_concurrent_runs_give_the_tokens_that_each_gives_alone(model: GraphModel) -> None:
    alone = [finished(begun(model, CudaExecutors(model), number)) for number in range(3)]
    executors = CudaExecutors(model)
    runs = [begun(model, executors, number) for number in range(3)]
    together: dict[int, Denoised] = {}
    for index in itertools.cycle(range(3)):
        if index not in together:
            try:
                next(runs[index])
            except StopIteration as end:
                together[index] = end.value
        if len(together) == 3:
            break
    for number, expected in enumerate(alone):
        got = together[number]
        assert (got.finish, got.steps) == (expected.finish, expected.steps)
        assert {index: guess.ids for index, guess in got.guesses.items()} == {
            index: guess.ids for index, guess in expected.guesses.items()
        }
    # The first run replays graphs and adds no pass to the queue.
    assert executors.queue.num_made == together[1].steps + together[2].steps
    assert executors.queue.num_passes < executors.queue.num_made
