"""Forward passes of interleaved runs: which are batched, what a fault or a dropped run does, and the same tokens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.pass_queue import PassQueue
from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, StableAndConfident, TemperatureSchedule, UniformNoise
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.scheduling.cooperative import Pieces, finished
from dgemma_engine.scheduling.timing import Cancel
from torch import Tensor

from tests.engine.fused_models import VOCAB, draw_ids, load, write

CPU = torch.device("cpu")
NOTHING = torch.tensor([], dtype=torch.int64)
SAMPLER = Sampler(
    num_steps=6,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=EntropyBound(bound=2.0),
    noise=UniformNoise(vocab_size=VOCAB),
    stop=StableAndConfident(num_earlier=1, confidence=0.5),
)


class FakeModel:
    """Records which canvases it ran together; the hidden state of a token is the token."""

    def __init__(self, most_together: int = 100) -> None:
        self.most_together = most_together
        self.asked: list[list[int]] = []
        self.faults: set[int] = set()

    def decode(self, canvas_BL: Tensor, cache: Any, **_given: Any) -> Tensor:
        return self.decode_together([CanvasPass(canvas_1L=canvas_BL, cache=cache)])[0]

    def decode_together(self, passes: Sequence[CanvasPass]) -> list[Tensor]:
        tokens = [int(each.canvas_1L[0, 0]) for each in passes]
        self.asked.append(tokens)
        if self.faults & set(tokens):
            raise RuntimeError("a fault")
        return [each.canvas_1L[..., None].float() for each in passes]


def queue_of(model: FakeModel, said: list[str] | None = None) -> PassQueue:
    return PassQueue(cast(DiffusionModel, model), report=None if said is None else said.append)


def canvas(token: int, length: int = 4, adapter: object = None) -> CanvasPass:
    return CanvasPass(canvas_1L=torch.full((1, length), token), cache=cast(Any, SimpleNamespace(adapter=adapter)))


def test_waiting_passes_run_with_the_first_that_is_read() -> None:
    model = FakeModel()
    queue = queue_of(model)
    first, second, third = (queue.add(canvas(token)) for token in (1, 2, 3))
    assert queue.read(second)[0, 0, 0] == 2
    assert [queue.read(each)[0, 0, 0] for each in (first, third)] == [1, 3]
    assert model.asked == [[2, 1, 3]]
    assert (queue.num_made, queue.num_passes) == (3, 1)


def test_dropped_pass_is_not_run() -> None:
    model = FakeModel()
    queue = queue_of(model)
    dropped, kept = queue.add(canvas(1)), queue.add(canvas(2))
    del dropped
    queue.read(kept)
    assert model.asked == [[2]]


def test_batch_keeps_to_the_models_limit_of_positions() -> None:
    model = FakeModel(most_together=24)
    queue = queue_of(model)
    waiting = [queue.add(canvas(token, length)) for token, length in ((1, 8), (2, 12), (3, 4), (4, 4))]
    queue.read(waiting[0])
    # Padded to twelve positions each, two canvases have 24 and three have 36.
    assert model.asked == [[1, 2]]
    queue.read(waiting[3])
    assert model.asked[1:] == [[4, 3]]


def test_passes_of_different_adapters_are_not_batched() -> None:
    model, mine = FakeModel(), object()
    queue = queue_of(model)
    waiting = [queue.add(canvas(token, adapter=adapter)) for token, adapter in ((1, mine), (2, None), (3, mine))]
    queue.read(waiting[0])
    queue.read(waiting[1])
    assert model.asked == [[1, 3], [2]]


@pytest.mark.parametrize("said", [None, []])
def test_fault_reaches_only_its_own_run_and_is_reported(said: list[str] | None) -> None:
    model = FakeModel()
    model.faults = {2}
    queue = queue_of(model, said)
    first, second = queue.add(canvas(1)), queue.add(canvas(2))
    assert queue.read(first)[0, 0, 0] == 1
    with pytest.raises(RuntimeError, match="a fault"):
        queue.read(second)
    assert model.asked == [[1, 2], [1], [2]]
    if said is not None:
        assert said == ["a pass over 2 canvases failed, each is run alone: RuntimeError('a fault')"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return load(write(tmp_path_factory.mktemp("model")), Ops.reference(), torch.float32, CPU)


def unhurried() -> Cancel:
    return Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)


def begun(
    model: DiffusionModel, number: int, queue: PassQueue | None, cancel: Cancel | None = None
) -> Pieces[Denoised]:
    """A run of a user with a prompt of their own."""
    cache = PromptCache(model.config, capacity=60, dtype=model.dtype, device=CPU)
    with torch.inference_mode():
        model.prefill(draw_ids(number, 11 + 9 * number, CPU), cache)
    rows = [Row(num_free=5 + number, head_ids=(7, 8), seed=number), Row(num_free=3, seed=40 + number)]
    executor = EagerExecutor(
        model, cache, canvases.start(rows, SAMPLER.noise, CPU), SAMPLER, suppressed_ids=NOTHING, queue=queue
    )
    return denoise(Denoiser(executor, SAMPLER), cancel=cancel or unhurried(), on_step=lambda _denoiser: None)


def in_turns(runs: list[Pieces[Denoised]]) -> dict[int, Denoised]:
    done: dict[int, Denoised] = {}
    for index in itertools.cycle(range(len(runs))):
        if index not in done:
            try:
                next(runs[index])
            except StopIteration as end:
                done[index] = end.value
                runs[index].close()
        if len(done) == len(runs):
            return done
    raise AssertionError


def test_users_in_turn_get_the_tokens_that_each_gets_alone(model: DiffusionModel) -> None:
    queue = PassQueue(model)
    together = in_turns([begun(model, number, queue) for number in range(4)])
    for number in range(4):
        expected = finished(begun(model, number, None))
        got = together[number]
        assert (got.finish, got.steps) == (expected.finish, expected.steps)
        assert {index: guess.ids for index, guess in got.guesses.items()} == {
            index: guess.ids for index, guess in expected.guesses.items()
        }
    assert queue.num_made == sum(done.steps for done in together.values())
    assert queue.num_passes <= queue.num_made - 3 * min(done.steps for done in together.values())


def test_cancelled_run_takes_no_part_in_the_next_pass(model: DiffusionModel) -> None:
    queue, cancel = PassQueue(model), unhurried()
    mine, theirs = begun(model, 1, queue), begun(model, 2, queue, cancel)
    for run in (mine, theirs, mine, theirs):
        next(run)
    cancel.set()
    with pytest.raises(StopIteration):
        next(theirs)
    del theirs
    finished(mine)
    assert queue.num_made == finished(begun(model, 1, None)).steps
