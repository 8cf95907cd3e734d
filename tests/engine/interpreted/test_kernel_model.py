"""A whole model through the kernels: its outputs in every format, and that graph, eager and reference agree.

In the interpreter the model is float32 where nothing is quantised, and equals the plain one. Compiled, it is bfloat16,
as it is served; graphs are then CUDA's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dgemma_engine.backends.cuda import canvas_pack, step_buffers
from dgemma_engine.backends.cuda.graph_executor import GraphExecutor
from dgemma_engine.backends.cuda.graph_model import GraphModel
from dgemma_engine.backends.cuda.graphs import Graphs, capture_on
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_graphs import StepGraphs
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoised, Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, StableAndConfident, TemperatureSchedule, UniformNoise
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_kernels.launch.launch_table import for_device

from tests.engine.fused_models import SLIDING, VOCAB, draw_ids, few, load, write
from tests.engine.interpreted.recorded_replay import record
from tests.rounding import model_error

SAMPLER = Sampler(
    num_steps=2,
    schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
    acceptance=EntropyBound(bound=2.0),
    noise=UniformNoise(vocab_size=VOCAB),
    stop=StableAndConfident(num_earlier=1, confidence=0.5),
)
# The interpreter takes milliseconds for each head of each token.
SMALL = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCAB}
NOTHING = torch.tensor([], dtype=torch.int64)


def plain_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="compiled kernels run in bfloat16: float32 not checked")
def test_outputs_equal_the_plain_models(tmp_path: Path, device: torch.device) -> None:
    folder = write(tmp_path, **SMALL)
    expected = few(load(folder, Ops.reference(), torch.float32, device), device)
    got = few(load(folder, Ops.triton(), torch.float32, device), device)
    for name, theirs in expected.items():
        assert torch.allclose(got[name], theirs, atol=model_error(64) * float(theirs.abs().max())), name


@pytest.mark.parametrize("form", [None, *Format])
def test_every_format_is_as_close_as_plain_pytorch(tmp_path: Path, form: Format | None, device: torch.device) -> None:
    """Every expert is chosen, so that no rounding error decides between two."""
    folder = write(tmp_path, form, num_experts=2, top_k_experts=2, **SMALL)
    exact = few(load(folder, Ops.reference(), torch.float32, device), device)
    same_dtype = few(load(folder, Ops.fused_reference(), torch.bfloat16, device), device)
    got = few(load(folder, Ops.triton(), torch.bfloat16, device), device)
    for name, theirs in exact.items():
        assert_as_close(got[name], same_dtype[name], theirs, name)


GAINS = {
    "linear": {"FILL": 64},
    **{f"linear.{form}": {"AHEAD": 1} for form in ("int8", "int4")},
    "attention": {"FILL": 8, "LOOPS": 2},
    **{f"experts_{part}.{form}": {"AHEAD": 1} for part in ("up", "down") for form in ("fp8", "int8", "int4")},
    "experts_down": {"EACH": 2},
    "pass": {"ROUTE_BESIDE": 1, "RENOISE_AHEAD": 1},
}


@pytest.mark.parametrize("form", [None, Format.FP8, Format.INT4])
def test_every_switch_of_the_launch_table_keeps_the_outputs(
    tmp_path: Path, form: Format | None, device: torch.device
) -> None:
    """All switches on: products split, keys split, scales ahead, blocks shared, routing beside the MLP."""
    folder = write(tmp_path, form, num_experts=2, top_k_experts=2, **SMALL)
    exact = few(load(folder, Ops.reference(), torch.float32, device), device)
    same_dtype = few(load(folder, Ops.fused_reference(), torch.bfloat16, device), device)
    ops = Ops.triton(for_device(device).changed(GAINS))
    got = few(load(folder, ops, torch.bfloat16, device), device)
    for name, theirs in exact.items():
        assert_as_close(got[name], same_dtype[name], theirs, name)


def test_steps_with_every_switch_guess_the_same(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the steps are captured as well, at their real lengths."""
    if device.type == "cpu":
        monkeypatch.setattr(step_buffers, "step_length", lambda num_tokens: -(-num_tokens // 4) * 4)
    folder, rows = write(tmp_path, layer_types=[SLIDING], **SMALL), [Row(num_free=4, head_ids=(7, 8), seed=3)]
    said = list[Denoised]()
    for table in (for_device(device).changed(GAINS), for_device(device)):
        model = load(folder, Ops.triton(table), plain_dtype(device), device)
        assert isinstance(model, FusedModel)
        steps = StepGraphs(model, Graphs(capture_on(device)))
        assert steps.renoises_ahead is bool(table.of("pass")["RENOISE_AHEAD"])
        said += [
            run(on_device(steps, prompt(model, 11), rows, device)) for _ in range(1 if device.type == "cpu" else 3)
        ]
    for other in said[1:]:
        # In bfloat16 another order of summation may change a token, so only the rows are compared.
        if device.type == "cpu":
            agree(said[0], other)
        assert other.guesses.keys() == said[0].guesses.keys()


def assert_as_close(got: torch.Tensor, same_dtype: torch.Tensor, exact: torch.Tensor, name: str) -> None:
    """At most twice as far from float32 as plain PyTorch in the same type."""
    ours, allowed = got.float() - exact, same_dtype.float() - exact
    floor = 1e-3 * float(exact.abs().max())
    assert torch.isfinite(ours).all(), name
    assert float(ours.square().mean().sqrt()) <= 2 * float(allowed.square().mean().sqrt()) + floor, name


def test_graph_eager_and_reference_agree(tmp_path: Path, device: torch.device) -> None:
    folder = write(tmp_path, layer_types=[SLIDING], **SMALL)
    dtype = plain_dtype(device)
    model = load(folder, Ops.triton(), dtype, device)
    assert isinstance(model, FusedModel)
    captured = StepGraphs(model, Graphs(capture_on(device)))
    cache = prompt(model, 21)
    # Larger, so that the buffers hold values of other rows when the smaller ones are replayed.
    larger = [Row(num_free=14, head_ids=(9, 4), seed=1), Row(num_free=9, first_ids=(3, 5), seed=2)]
    rows = [Row(num_free=6, head_ids=(7, 8), seed=3), Row(num_free=4, seed=4)]
    run(on_device(captured, cache, larger, device))
    got = run(on_device(captured, cache, rows, device))
    assert captured._graphs.num_captured == 2  # pyright: ignore[reportPrivateUsage]
    eager = StepGraphs(model, Graphs(capture_on(device), most=0))
    agree(got, run(on_device(eager, cache, rows, device)))
    if dtype is torch.float32:
        plain = load(folder, Ops.reference(), torch.float32, device)
        canvas = canvases.start(rows, SAMPLER.noise, device)
        executor = EagerExecutor(plain, prompt(plain, 21), canvas, SAMPLER, suppressed_ids=NOTHING)
        agree(run(Denoiser(executor, SAMPLER)), got)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU captures real graphs: the stand-in was not checked")
def test_replayed_kernels_read_the_current_document(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records with the keys and values of one document, replays with those of another, whose block is shorter."""
    folder = write(tmp_path, layer_types=[SLIDING], **SMALL)
    model = load(folder, Ops.triton(), torch.float32, device)
    assert isinstance(model, FusedModel)
    captured, eager = StepGraphs(model, Graphs(record)), StepGraphs(model, Graphs(record, most=0))
    # Pads to a smaller multiple than real steps, so that the test stays short.
    monkeypatch.setattr(step_buffers, "step_length", lambda num_tokens: -(-num_tokens // 4) * 4)
    rows, one_step = [Row(num_free=4, head_ids=(7, 8), seed=3)], replace(SAMPLER, num_steps=1)
    for length, block in ((11, [4, 9, 2]), (10, [5]), (5, [11])):
        cache = prompt(model, length)
        got = run(on_device(captured, cache, rows, device, one_step, block))
    assert captured._graphs.num_captured == 1  # pyright: ignore[reportPrivateUsage]
    expected = run(on_device(eager, prompt(model, 5), rows, device, one_step, [11]))
    agree(got, expected)
    assert cache.length == 6
    assert got.guesses[0].entropy == pytest.approx(expected.guesses[0].entropy, rel=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU captures real graphs: the stand-in was not checked")
def test_replayed_kernels_read_the_current_prompts(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two canvases in one pass, recorded with two prompts and replayed with two others."""
    folder = write(tmp_path, layer_types=[SLIDING], **SMALL)
    model = load(folder, Ops.triton(), torch.float32, device)
    assert isinstance(model, FusedModel)
    monkeypatch.setattr(canvas_pack, "step_length", lambda num_tokens: -(-num_tokens // 4) * 4)
    graphed = GraphModel(model, Graphs(record))
    with torch.inference_mode():
        for number in range(3):
            passes = [
                CanvasPass(canvas_1L=draw_ids(5 + number, length, device), cache=prompt(model, past + number))
                for length, past in ((4, 11), (3, 5))
            ]
            got = graphed.decode_together(passes)
        assert graphed.graphs.num_captured == 1
        for ours, each in zip(got, passes, strict=True):
            theirs = FusedModel.decode(model, each.canvas_1L, each.cache)
            assert torch.allclose(ours, theirs, atol=model_error(64) * float(theirs.abs().max()))


def prompt(model: DiffusionModel, length: int) -> PromptCache:
    cache = PromptCache(model.config, capacity=200, dtype=model.dtype, device=model.device)
    with torch.inference_mode():
        model.prefill(draw_ids(length, length, model.device), cache)
    return cache


def on_device(
    steps: StepGraphs,
    cache: PromptCache,
    rows: Sequence[Row],
    device: torch.device,
    sampler: Sampler = SAMPLER,
    block: Sequence[int] = (),
) -> Denoiser:
    canvas = canvases.start(rows, sampler.noise, device)
    executor = GraphExecutor(steps, cache, canvas, sampler, suppressed_ids=NOTHING, block_ids=block)
    return Denoiser(executor, sampler)


def run(run: Denoiser) -> Denoised:
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    return finished(denoise(run, cancel=cancel, on_step=lambda _run: None))


def agree(got: Denoised, expected: Denoised) -> None:
    assert (got.steps, got.finish) == (expected.steps, expected.finish)
    assert {index: guess.ids for index, guess in got.guesses.items()} == {
        index: guess.ids for index, guess in expected.guesses.items()
    }
