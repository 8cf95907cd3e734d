"""`CpuModel` against the plain model of the same weights: every entry point, every shape, up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dgemma_engine.backends.cpu.attention import GroupedAttention
from dgemma_engine.backends.cpu.model import CpuModel, pack_for_cpu
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.model import attention_masks
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_kernels.packing.cpu import PackedGate, PackedMatrix
from torch import Tensor, nn

from tests.rounding import model_error

pytestmark = pytest.mark.numerical

SLIDING, FULL = "sliding_attention", "full_attention"
WINDOW = 8
CPU = torch.device("cpu")
# Tolerance as a share of the largest value.
CLOSE = model_error(64)

SHAPES: dict[str, dict[str, Any]] = {
    "mixed layers": {"layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL]},
    "full layers only": {"layer_types": [FULL, FULL]},
    "one kv head": {"num_key_value_heads": 1, "num_global_key_value_heads": 1},
    "many kv heads": {"num_key_value_heads": 4, "num_global_key_value_heads": 4, "num_attention_heads": 8},
    "equal layer scalars": {"equal_scalars": True},
    "window of two": {"sliding_window": 2},
    "every expert": {"num_experts": 3, "top_k_experts": 3},
    "many experts": {"num_experts": 16, "top_k_experts": 1},
    "wide full head": {"head_dim": 8, "global_head_dim": 48},
}


def draw_ids(seed: int, length: int) -> Tensor:
    return torch.randint(0, 320, (1, length), generator=torch.Generator().manual_seed(seed))


def packed_rows(
    model: DiffusionModel, num_past: int, lengths: list[int]
) -> tuple[Tensor, attention_masks.AttentionMasks]:
    """Returns positions and masks of canvases that are packed into one row."""
    row_L = torch.tensor([row for row, length in enumerate(lengths) for _ in range(length)])
    offset_L = torch.cat([torch.arange(length) for length in lengths])
    window = model.config.sliding_window
    return (num_past + offset_L)[None], attention_masks.packed(row_L, num_past=num_past, sliding_window=window)


def everything(model: DiffusionModel, capacity: int = 4) -> dict[str, Tensor]:
    """Returns the outputs of every entry point; prompts are longer than the window, and a small cache has to grow."""
    cache = PromptCache(model.config, capacity=capacity, dtype=model.dtype, device=CPU)
    said: dict[str, Tensor] = {}
    soft_BLD = torch.randn(1, 7, model.config.hidden_size, generator=torch.Generator().manual_seed(9)).to(model.dtype)
    with torch.inference_mode():
        said["first encode"] = model.encode(draw_ids(1, 5), cache)
        model.prefill(draw_ids(2, 13), cache)
        said["one token"] = model.encode(draw_ids(3, 1), cache)
        said["second encode"] = model.encode(draw_ids(4, 6), cache)
        canvas = draw_ids(5, 7)
        said["first step"] = model.decode(canvas, cache)
        said["later step"] = model.decode(canvas, cache, soft_BLD=soft_BLD)
        positions, packed = packed_rows(model, cache.length, [3, 4])
        said["packed"] = model.decode(canvas, cache, soft_BLD=soft_BLD, positions_BL=positions, attention_masks=packed)
        said["after a block"] = model.decode_after(draw_ids(6, 5), canvas, cache, soft_BLD=soft_BLD)
        positions, packed = packed_rows(model, cache.length + 3, [5, 2])
        said["packed after a block"] = model.decode_after(
            draw_ids(7, 3), canvas, cache, soft_BLD=soft_BLD, positions_BL=positions, attention_masks=packed
        )
        row_T, position_T = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1]) + cache.length - 1
        branches = attention_masks.branches(
            row_T,
            position_T,
            num_past=cache.length,
            sliding_window=model.config.sliding_window,
            hidden_from=cache.length - 1,
        )
        said["branches"] = model.encode(draw_ids(8, 5), cache, positions_BT=position_T[None], attention_masks=branches)
        # Prompts of several pieces, in a cache of their own: random layers amplify rounding from pass to pass.
        cache = PromptCache(model.config, capacity=capacity, dtype=model.dtype, device=CPU)
        said["long"] = model.encode(draw_ids(10, 150), cache)
        model.prefill(draw_ids(11, 140), cache)
        said["after long"] = model.encode(draw_ids(12, 2), cache)
        said["logits"] = model.logits(said["second encode"])
        said["soft embeddings"] = model.soft_embeddings(said["logits"].softmax(-1))
    return said


@pytest.fixture
def load(make_checkpoint: Callable[..., Any]) -> Callable[..., DiffusionGemma]:
    def make(dtype: torch.dtype = torch.float32, **shape: Any) -> DiffusionGemma:
        folder = make_checkpoint(sliding_window=shape.pop("sliding_window", WINDOW), **shape).folder
        return load_model(folder, Ops.reference(), device=CPU, dtype=dtype)

    return make


def in_every_size(model: DiffusionGemma, sizes: range) -> None:
    """Calls every entry point with each number of tokens in `sizes`."""
    for num_tokens in sizes:
        cache = PromptCache(model.config, capacity=200, dtype=model.dtype, device=CPU)
        with torch.inference_mode():
            model.prefill(draw_ids(1, num_tokens), cache)
            hidden = model.encode(draw_ids(2, num_tokens), cache)
            soft_BLD = model.soft_embeddings(model.logits(hidden).softmax(-1))
            model.decode(draw_ids(3, num_tokens), cache, soft_BLD=soft_BLD)
            positions, packed = packed_rows(model, cache.length, [num_tokens - num_tokens // 2, num_tokens // 2])
            model.decode(draw_ids(3, num_tokens), cache, positions_BL=positions, attention_masks=packed)
            model.decode_after(draw_ids(4, num_tokens), draw_ids(5, num_tokens), cache, soft_BLD=soft_BLD)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables TorchScript: the same code then runs as Python, where calls can be recorded."""

    def broken(*_args: Any) -> None:
        raise RuntimeError("no TorchScript")

    monkeypatch.setattr(torch.jit, "script", broken)


def test_products_have_few_numbers_of_rows(
    load: Callable[..., DiffusionGemma], monkeypatch: pytest.MonkeyPatch, uncompiled: None
) -> None:
    """oneDNN caches a primitive for each number of rows: without padding, they took 1 GB in half an hour."""
    seen = set[int]()

    def watched(call: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
        def product(self: Any, x_NI: Tensor) -> Tensor:
            seen.add(len(x_NI))
            return call(self, x_NI)

        return product

    for kind in (PackedMatrix, PackedGate):
        monkeypatch.setattr(kind, "forward", watched(kind.forward))
    model = CpuModel(load(torch.bfloat16))
    in_every_size(model, range(1, 40))
    few = {1, *range(4, 68, 4), 80}
    assert seen <= few, "two times 39 tokens fill 80 rows"
    in_every_size(model, range(70, 150, 4))
    assert seen <= few | {96, 112, 128, 192, 256, 384}


def test_attention_has_few_sizes(
    load: Callable[..., DiffusionGemma], monkeypatch: pytest.MonkeyPatch, uncompiled: None
) -> None:
    """oneDNN also caches a primitive of attention for each pair of numbers of queries and keys."""
    queries, keys = set[int](), set[int]()
    forward = GroupedAttention.forward

    def watched(self: Any, q_NHd: Tensor, kv_2GSd: Tensor, *sizes: Any) -> Tensor:
        _rows, _tokens, num_rows, _first, masks = sizes
        queries.update(num_rows)
        keys.update(mask.shape[-1] for mask in masks)
        return forward(self, q_NHd, kv_2GSd, *sizes)

    monkeypatch.setattr(GroupedAttention, "forward", watched)
    in_every_size(CpuModel(load(torch.bfloat16)), range(1, 40))
    assert queries <= {1, *range(4, 44, 4)}
    assert keys <= {64, 128, 192}, "four times 39 tokens are 156 keys"


@pytest.mark.parametrize("capacity", [4, 200])
def test_uninitialised_memory_does_not_reach_the_outputs(load: Callable[..., DiffusionGemma], capacity: int) -> None:
    """Keys after the canvas have weight 0, and 0 times uninitialised memory may be NaN."""
    model = load(torch.bfloat16)
    torch.use_deterministic_algorithms(True)  # Fills uninitialised memory with NaN.
    try:
        said = everything(CpuModel(model), capacity)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in said.values())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_are_those_of_the_plain_model(load: Callable[..., DiffusionGemma], shape: dict[str, Any]) -> None:
    model = load(**shape)
    said = everything(CpuModel(model))
    for name, expected in everything(model).items():
        actual = said[name]
        assert actual.dtype == expected.dtype
        assert (actual - expected).abs().max() <= CLOSE * expected.abs().max(), name


def test_bfloat16_error_is_at_most_twice_that_of_the_plain_model(load: Callable[..., DiffusionGemma]) -> None:
    exact = everything(load(spread=0.1))
    model = load(torch.bfloat16, spread=0.1)
    plain, fast = everything(model), everything(CpuModel(model))

    def error(said: dict[str, Tensor], name: str) -> float:
        # The median: which of two nearly equal experts a token goes to is a matter of rounding.
        return float((said[name].float() - exact[name]).abs().median())

    for name in exact:
        assert error(fast, name) <= 2 * error(plain, name), name


def test_calls_modules_that_were_replaced(load: Callable[..., DiffusionGemma]) -> None:
    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.inner(*inputs) * 2

    model = load(torch.bfloat16, spread=0.1)
    layers: Any = model.layers
    for layer in layers:
        layer.self_attn.qkv_proj = Doubled(layer.self_attn.qkv_proj)
        layer.mlp.gate_up_proj = Doubled(layer.mlp.gate_up_proj)
        layer.experts = Doubled(layer.experts)
    expected = everything(model)
    for name, actual in everything(CpuModel(model)).items():
        assert (
            torch.nn.functional.cosine_similarity(actual.float().flatten(), expected[name].float().flatten(), dim=0)
            > 0.99
        ), name


def test_several_rows_and_caches_of_another_kind_are_refused(load: Callable[..., DiffusionGemma]) -> None:
    model = CpuModel(load())
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)
    with pytest.raises(ValueError, match="too many values to unpack"):
        model.encode(draw_ids(1, 4).expand(2, -1), cache)
    with pytest.raises(AssertionError, match="room of a prompt cache"):
        model.encode(draw_ids(1, 4), GraphKV())


def test_only_small_models_on_a_processor_are_packed(
    load: Callable[..., DiffusionGemma], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    assert isinstance(pack_for_cpu(model), CpuModel)
    assert pack_for_cpu(model.to("meta")) is model
    model = load()
    monkeypatch.setattr("dgemma_engine.model.devices._SMALL_VALUES", 1_000)
    assert pack_for_cpu(model) is model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_runs_uncompiled_where_torchscript_fails(
    load: Callable[..., DiffusionGemma], request: pytest.FixtureRequest, dtype: torch.dtype
) -> None:
    model = load(dtype)
    expected = everything(CpuModel(model))
    request.getfixturevalue("uncompiled")
    for name, actual in everything(CpuModel(model)).items():
        assert torch.equal(actual, expected[name]), name


@pytest.mark.parametrize("num_experts", [4, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_run_as_one_torchscript_method(
    load: Callable[..., DiffusionGemma], dtype: torch.dtype, num_experts: int
) -> None:
    model = CpuModel(load(dtype, num_experts=num_experts, top_k_experts=2))
    stack: Any = model._stack
    assert isinstance(stack._all, torch.ScriptMethod)
    assert (model.is_compiled, model.uncompiled_reason) == (True, "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embedded_model_is_compiled_in_both_formats(dtype: torch.dtype) -> None:
    folder = model_folder("tiny")
    model = pack_for_cpu(load_model(folder, Ops.reference(), device=CPU, dtype=dtype))
    assert (model.is_compiled, model.uncompiled_reason) == (True, "")


def test_layers_that_stay_uncompiled_are_reported_once(
    load: Callable[..., DiffusionGemma], uncompiled: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = CpuModel(load())
    assert (model.is_compiled, model.uncompiled_reason) == (False, "no TorchScript")
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("The model runs uncompiled, and each step takes longer: ")
    assert warning.endswith(": no TorchScript")


def test_embeddings_are_those_of_the_plain_model_and_no_copy(load: Callable[..., DiffusionGemma]) -> None:
    model = load()
    ids = draw_ids(1, 3)
    expected = model.embed(ids)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(2)
    assert torch.equal(CpuModel(model).embed(ids), 2 * expected)
