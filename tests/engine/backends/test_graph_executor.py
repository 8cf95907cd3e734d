"""Steps replayed as a CUDA graph would be, against the eager loop: the same tokens and the same number of steps.

Replayed work uses the values it was captured with and reads nothing from Python. The fused operations are plain
PyTorch here; `interpreted/` runs the kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from dgemma_engine.backends.cuda import step_graphs
from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graphs import Graphs, repeat
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_buffers import StepBuffers, StepShape
from dgemma_engine.backends.cuda.step_graphs import StepGraphs
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.reference_loop import denoise_plainly
from dgemma_engine.diffusion.sampler import (
    ClampedConditioning,
    EntropyBound,
    Sampler,
    StableAndConfident,
    TemperatureSchedule,
    UniformNoise,
)
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Finish
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel

from tests.engine.fused_models import VOCAB, WINDOW, draw_ids, load, write

CPU = torch.device("cpu")
SAMPLER = Sampler(
    num_steps=12,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=EntropyBound(bound=2.0),
    noise=UniformNoise(vocab_size=VOCAB),
    stop=StableAndConfident(num_earlier=1, confidence=0.5),
)
NOTHING = torch.tensor([], dtype=torch.int64)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[DiffusionModel, FusedModel]:
    folder = write(tmp_path_factory.mktemp("model"))
    fused = load(folder, Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(fused, FusedModel)
    return load(folder, Ops.reference(), torch.float32, CPU), fused


def prompt(model: DiffusionModel, length: int) -> PromptCache:
    cache = PromptCache(model.config, capacity=200, dtype=torch.float32, device=CPU)
    with torch.inference_mode():
        model.prefill(draw_ids(length, length, CPU), cache)
    return cache


def unhurried() -> Cancel:
    return Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)


def run(run: Denoiser, choose: Callable[[Denoiser], Sequence[int]] | None = None) -> Denoised:
    return finished(denoise(run, cancel=unhurried(), on_step=lambda _run: None, choose=choose))


def plainly(
    model: DiffusionModel, length: int, rows: Sequence[Row], sampler: Sampler = SAMPLER, **options: Any
) -> tuple[Denoised, PromptCache]:
    choose, cache = options.pop("choose", None), prompt(model, length)
    canvas = canvases.start(rows, sampler.noise, CPU)
    options.setdefault("suppressed_ids", NOTHING)
    return run(Denoiser(EagerExecutor(model, cache, canvas, sampler, **options), sampler), choose), cache


def on_device(
    steps: StepGraphs, length: int, rows: Sequence[Row], sampler: Sampler = SAMPLER, **options: Any
) -> tuple[Denoised, PromptCache]:
    choose, cache = options.pop("choose", None), options.pop("cache", None) or prompt(steps.model, length)
    canvas = canvases.start(rows, sampler.noise, CPU)
    options.setdefault("suppressed_ids", NOTHING)
    return run(Denoiser(GraphExecutor(steps, cache, canvas, sampler, **options), sampler), choose), cache


def fresh(steps: StepGraphs, length: int, rows: Sequence[Row]) -> Denoiser:
    canvas = canvases.start(rows, SAMPLER.noise, CPU)
    executor = GraphExecutor(steps, prompt(steps.model, length), canvas, SAMPLER, suppressed_ids=NOTHING)
    return Denoiser(executor, SAMPLER)


def check(got: Denoised, expected: Denoised) -> None:
    assert (got.steps, got.finish) == (expected.steps, expected.finish)
    assert got.guesses.keys() == expected.guesses.keys()
    for index, guess in expected.guesses.items():
        assert (got.guesses[index].ids, got.guesses[index].steps) == (guess.ids, guess.steps)
        assert got.guesses[index].confidence == pytest.approx(guess.confidence, abs=1e-3)
        assert got.guesses[index].entropy == pytest.approx(guess.entropy, abs=1e-3)


def steps_of(models: tuple[DiffusionModel, FusedModel]) -> StepGraphs:
    return StepGraphs(models[1], Graphs(repeat))


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_interleaved_runs_do_not_affect_each_other(models: tuple[DiffusionModel, FusedModel], patience: int) -> None:
    """Also where they alternate within a step, and where the second run needs larger buffers."""
    cases = [
        (21, [Row(num_free=9, head_ids=(31, 32), seed=1), Row(num_free=4, seed=2)]),
        (13, [Row(num_free=40, seed=number) for number in range(3, 13)]),
        (21, [Row(num_free=7, head_ids=(33,), seed=20)]),
    ]
    steps = steps_of(models)
    waiting = [
        (index, denoise(fresh(steps, length, rows), cancel=unhurried(), on_step=lambda _run: None))
        for index, (length, rows) in enumerate(cases)
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
    for index, (length, rows) in enumerate(cases):
        check(done[index], on_device(steps_of(models), length, rows)[0])


def test_run_goes_on_after_its_buffers_were_released(models: tuple[DiffusionModel, FusedModel]) -> None:
    steps, rows = steps_of(models), [Row(num_free=9, head_ids=(31, 32), seed=1), Row(num_free=4, seed=2)]
    work = denoise(fresh(steps, 21, rows), cancel=unhurried(), on_step=lambda _run: None)
    for _ in range(4):
        next(work)
    steps.clear()
    on_device(steps, 13, [Row(num_free=30, seed=3)])
    check(finished(work), plainly(models[0], 21, rows)[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length", [1, WINDOW - 1, 21])
def test_graph_eager_and_oracle_agree(models: tuple[DiffusionModel, FusedModel], seed: int, length: int) -> None:
    """One canvas after prompts shorter and longer than the window."""
    row = Row(num_free=9, head_ids=(7, 8, 9), seed=seed)
    expected, cache = plainly(models[0], length, [row])
    oracle = denoise_plainly(
        models[0], cache, 9, [7, 8, 9], SAMPLER, banned_ids=[], generator=torch.Generator().manual_seed(seed)
    )
    assert (oracle.ids[:9], oracle.steps) == (expected.guesses[0].ids, expected.guesses[0].steps)
    captured = steps_of(models)
    check(on_device(captured, length, [row])[0], expected)
    check(on_device(StepGraphs(models[1], Graphs(repeat, most=0)), length, [row])[0], expected)


def test_runs_end_at_different_steps(models: tuple[DiffusionModel, FusedModel]) -> None:
    """Where all take the same number of steps, comparing the numbers proves nothing."""
    ends = [plainly(models[0], 21, [Row(num_free=9, head_ids=(7, 8, 9), seed=seed)])[0] for seed in range(6)]
    assert len({one.steps for one in ends}) > 2 and any(one.finish is Finish.STABLE for one in ends)


MANY = [
    Row(num_free=6, head_ids=(1, 2), seed=1, first_ids=(5, 6, 7)),
    Row(num_free=11, opening_ids=(3,), head_ids=(4,), seed=2, last_ids=tuple(range(40))),
    Row(num_free=1, seed=3, first_ids=(9, 10), last_ids=(10, 11)),
    Row(num_free=13, head_ids=(1,), warm_ids=(4, 5, 6), seed=4),
    Row(num_free=4, head_ids=(1, 2, 3), seed=5),
]


@pytest.mark.parametrize("rule", list(ClampedConditioning))
def test_packed_rows_with_limits_leave_one_by_one(
    models: tuple[DiffusionModel, FusedModel], rule: ClampedConditioning
) -> None:
    sampler = replace(SAMPLER, clamped_conditioning=rule)
    banned = torch.tensor([0, 11, 44])
    choose: Any = lambda denoising: [0, 1, 3]  # noqa: E731
    expected, _ = plainly(models[0], 21, MANY, sampler, suppressed_ids=banned, choose=choose)
    got, _ = on_device(steps_of(models), 21, MANY, sampler, suppressed_ids=banned, choose=choose)
    check(got, expected)
    assert expected.guesses[0].ids[0] in (5, 6, 7) and expected.guesses[2].ids == [10]


def test_block_before_the_canvas_joins_the_prompt_in_the_same_pass(models: tuple[DiffusionModel, FusedModel]) -> None:
    rows = [Row(num_free=6, seed=1), Row(num_free=7, head_ids=(3,), seed=2)]
    block = [17, 23, 4, 99, 5]
    expected, theirs = plainly(models[0], 21, rows, block_ids=block)
    captured = steps_of(models)
    for _repetition in range(3):
        got, ours = on_device(captured, 21, rows, block_ids=block)
        check(got, expected)
        assert ours.length == theirs.length == 26


LARGER = [Row(num_free=12, head_ids=(1, 2), seed=9), Row(num_free=11, head_ids=(5,), seed=8, first_ids=(300, 301))]


@pytest.fixture
def after_a_larger_one(models: tuple[DiffusionModel, FusedModel]) -> tuple[StepGraphs, PromptCache]:
    """Graphs captured, and buffers full, of a larger request after a longer prompt in the same memory."""
    captured, cache = steps_of(models), prompt(models[1], 40)
    rows = [Row(num_free=20, head_ids=(1, 2), seed=seed) for seed in range(3)]
    for _repetition in range(3):
        on_device(captured, 40, rows, cache=cache, suppressed_ids=torch.arange(100))
        on_device(captured, 40, LARGER, cache=cache, suppressed_ids=torch.arange(100))
    assert captured._graphs.num_captured >= 4  # pyright: ignore[reportPrivateUsage]
    return captured, cache


@pytest.mark.parametrize("length", [3, 25])
def test_replay_sees_nothing_of_a_larger_request(
    models: tuple[DiffusionModel, FusedModel], after_a_larger_one: tuple[StepGraphs, PromptCache], length: int
) -> None:
    """The bug to catch: a stale mask, length or distribution in replayed work crashes nothing, it only costs steps."""
    captured, cache = after_a_larger_one
    before = captured._graphs.num_captured  # pyright: ignore[reportPrivateUsage]
    for seed in range(4):
        rows = [Row(num_free=9, head_ids=(7, 8, 9), seed=seed), Row(num_free=6, seed=seed + 20, first_ids=(5, 6))]
        expected, _ = plainly(models[0], length, rows)
        cache.truncate(0)
        with torch.inference_mode():
            models[1].prefill(draw_ids(length, length, CPU), cache)
        check(on_device(captured, length, rows, cache=cache)[0], expected)
    assert captured._graphs.num_captured == before, "what was captured serves other prompts and canvases"


STALE = {
    "mask": "row_L",
    "position": "offset_L",
    "clamps": "fixed_L",
    "prompt length": "num_before_1",
    "store": "num_stored_1",
    "self-conditioning": "soft_LD",
    "bans": "set_of_L",
    "temperature": "temperature_1",
    "draws": "levels_L",
}


@pytest.mark.parametrize("field", STALE.values(), ids=STALE.keys())
def test_stale_input_makes_the_test_of_replays_fail(
    models: tuple[DiffusionModel, FusedModel],
    after_a_larger_one: tuple[StepGraphs, PromptCache],
    field: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test above fails if any input keeps the value that was captured."""
    captured, cache = after_a_larger_one
    frozen: dict[Any, torch.Tensor] = {}

    def stale(view: Any) -> Any:
        tensor = getattr(view, field)
        return replace(view, **{field: frozen.setdefault(tensor.shape, tensor.clone()).clone()})

    forward, renoise = step_graphs.forward, step_graphs.renoise
    monkeypatch.setattr(step_graphs, "forward", lambda model, view, *rest: forward(model, stale(view), *rest))
    monkeypatch.setattr(step_graphs, "renoise", lambda model, view, sampler: renoise(model, stale(view), sampler))
    captured._graphs.clear()  # pyright: ignore[reportPrivateUsage]
    if field == "num_stored_1":
        # A canvas that is stored too late does no harm, one that is stored too early overwrites the prompt.
        cache.truncate(3)
    for _repetition in range(3):
        on_device(captured, 40, LARGER, cache=cache, suppressed_ids=torch.arange(100))
    with pytest.raises(AssertionError):
        test_replay_sees_nothing_of_a_larger_request(models, (captured, cache), 25)


@pytest.mark.parametrize("num_documents", [2, 10])
def test_documents_add_no_graphs(models: tuple[DiffusionModel, FusedModel], num_documents: int) -> None:
    """Work captured with the first document's keys and values reads those of the document at hand."""
    captured, rows = steps_of(models), [Row(num_free=9, head_ids=(7, 8, 9), seed=4)]
    lengths = [21, *range(3, 3 + num_documents - 1)]
    caches = [prompt(models[1], length) for length in lengths]
    for _repetition in range(2):
        on_device(captured, lengths[0], rows, cache=caches[0])
    graphs = captured._graphs  # pyright: ignore[reportPrivateUsage]
    before, known = graphs.num_captured, graphs.num_known
    for _visit in range(2):
        for length, cache in zip(lengths, caches, strict=True):
            check(on_device(captured, length, rows, cache=cache)[0], plainly(models[0], length, rows)[0])
    assert (graphs.num_captured, graphs.num_known) == (before, known)


def test_documents_that_take_turns_step_by_step_read_their_own_prompts(
    models: tuple[DiffusionModel, FusedModel],
) -> None:
    captured, rows = steps_of(models), [Row(num_free=9, head_ids=(7, 8, 9), seed=4)]
    lengths = [21, 3, 40]
    for _repetition in range(2):
        runs = [denoise(fresh(captured, n, rows), cancel=unhurried(), on_step=lambda _run: None) for n in lengths]
        done = dict[int, Denoised]()
        while len(done) < len(runs):
            for index, work in enumerate(runs):
                try:
                    next(work)
                except StopIteration as end:
                    done.setdefault(index, end.value)
        for index, length in enumerate(lengths):
            check(done[index], plainly(models[0], length, rows)[0])


def test_a_prompt_that_grows_keeps_its_graphs(models: tuple[DiffusionModel, FusedModel]) -> None:
    captured, rows = steps_of(models), [Row(num_free=9, seed=4)]
    cache = PromptCache(models[1].config, capacity=1, dtype=torch.float32, device=CPU)
    for length in (1, 1, 90, 150):
        cache.truncate(0)
        with torch.inference_mode():
            models[1].prefill(draw_ids(length, length, CPU), cache)
        check(on_device(captured, length, rows, cache=cache)[0], plainly(models[0], length, rows)[0])
    assert captured._graphs.num_captured == 2  # pyright: ignore[reportPrivateUsage]


def test_blocks_of_several_lengths_share_a_graph(models: tuple[DiffusionModel, FusedModel]) -> None:
    captured, rows = steps_of(models), [Row(num_free=7, head_ids=(3,), seed=2)]
    for length in (5, 31, 1, 32):
        block = draw_ids(length + 50, length, CPU)[0].tolist()
        expected, theirs = plainly(models[0], 21, rows, block_ids=block)
        got, ours = on_device(captured, 21, rows, block_ids=block)
        check(got, expected)
        assert ours.length == theirs.length == 21 + length
    assert captured._graphs.num_captured == 3, "first steps with a block, later ones, and renoising"  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("num_tokens", "length"),
    [(1, 32), (32, 32), (33, 64), (65, 128), (129, 192), (193, 256), (257, 384), (385, 512), (513, 768), (769, 1024)],
)
def test_steps_have_few_lengths(num_tokens: int, length: int) -> None:
    assert StepShape.holding(3, num_tokens, num_tokens) == StepShape(num_rows=4, length=length, num_block=length)
    assert StepShape.holding(1, num_tokens).num_block == 0


def test_larger_canvas_than_any_before_gets_new_buffers(models: tuple[DiffusionModel, FusedModel]) -> None:
    captured = steps_of(models)
    for num_free in (4, 70, 4):
        rows = [Row(num_free=num_free, seed=seed, first_ids=(seed, seed + 1)) for seed in range(20)]
        expected, _ = plainly(models[0], 5, rows, replace(SAMPLER, num_steps=2))
        check(on_device(captured, 5, rows, replace(SAMPLER, num_steps=2))[0], expected)


def test_limit_wins_where_all_its_tokens_are_suppressed(
    models: tuple[DiffusionModel, FusedModel],
) -> None:
    row = Row(num_free=3, seed=1, first_ids=(5, 6))
    got, _ = on_device(steps_of(models), 5, [row], suppressed_ids=torch.arange(VOCAB - 1))
    assert got.guesses[0].ids[0] in (5, 6) and got.guesses[0].ids[1:] == [VOCAB - 1] * 2


def test_views_lie_in_the_same_memory() -> None:
    sizes: dict[str, Any] = {"vocab_size": 8, "hidden_size": 4, "dtype": torch.float32, "device": CPU}
    buffers = StepBuffers(StepShape(num_rows=4, length=64, num_block=3), 2, **sizes)
    small, large = (
        buffers.view(StepShape.holding(1, 20)),
        buffers.view(StepShape(num_rows=4, length=64, num_block=3)),
    )
    assert small.logits_LV.shape == (32, 8) and small.free_RL.shape == (1, 32) and small.scores_4L.shape == (4, 32)
    assert small.logits_LV.data_ptr() == large.logits_LV.data_ptr() and len(large.block_T) == 3
    assert buffers.holds(StepShape(num_rows=2, length=32), 2)
    assert not buffers.holds(StepShape(num_rows=8, length=32), 2)
    assert not buffers.holds(StepShape(num_rows=2, length=32), 3)
