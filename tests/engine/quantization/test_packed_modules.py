"""Layers that expand their weights on use give the same results as expanded layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint.loader import Residence, load_model
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.quantization.quantized_linear import PackedExperts, PackedLinear, Scratch
from dgemma_engine.quantization.quantized_tensor import Encoding, quantise

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


def loaded(folder: Path, residence: Residence, dtype: torch.dtype = torch.bfloat16) -> DiffusionGemma:
    return load_model(folder, Ops.reference(), device=CPU, dtype=dtype, residence=residence)


def logits(model: DiffusionGemma, num_canvas: int) -> torch.Tensor:
    cache = PromptCache(model.config, capacity=32, dtype=model.dtype, device=CPU)
    with torch.inference_mode():
        model.encode(torch.arange(1, 12)[None], cache)
        return model.logits(model.decode(torch.arange(20, 20 + num_canvas)[None], cache))


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("num_canvas", [1, 12])
def test_packed_model_equals_the_expanded_one(
    form: Format, num_canvas: int, make_quantised: Callable[..., Path]
) -> None:
    folder = make_quantised(form, moe_intermediate_size=44, hidden_size=72, num_experts=8)
    expanded, packed = (logits(loaded(folder, residence), num_canvas) for residence in Residence)
    assert bool(expanded.isfinite().all())
    assert torch.equal(expanded, packed)


@pytest.mark.parametrize("form", list(Format))
def test_packed_model_keeps_no_floats_of_quantised_weights(form: Format, make_quantised: Callable[..., Path]) -> None:
    model = loaded(make_quantised(form), Residence.PACKED)
    for layer in model.layers:
        assert isinstance(layer.experts, PackedExperts)
        assert isinstance(layer.mlp.down_proj, PackedLinear) == (form is not Format.NVFP4)
        assert isinstance(layer.router.proj, torch.nn.Linear)
    assert not any("experts" in name for name in model.state_dict())


def test_plain_folder_loads_the_same_either_way(make_plain: Callable[..., Path]) -> None:
    model = loaded(make_plain(), Residence.PACKED)
    assert not any(isinstance(module, (PackedLinear, PackedExperts)) for module in model.modules())


@pytest.mark.parametrize(("small_values", "packed"), [(0, True), (2**28, False)])
def test_only_a_small_models_weights_are_expanded(
    make_quantised: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, small_values: int, packed: bool
) -> None:
    monkeypatch.setattr("dgemma_engine.model.devices._SMALL_VALUES", small_values)
    model = load_model(make_quantised(Format.INT8), Ops.reference(), device=CPU, dtype=torch.bfloat16)
    assert any(isinstance(module, PackedExperts) for module in model.modules()) == packed


def test_only_chosen_experts_are_expanded() -> None:
    seen: list[int] = []
    reference = Ops.reference()

    def experts(*arguments: torch.Tensor) -> torch.Tensor:
        seen.append(arguments[3].shape[0])
        return reference.experts(*arguments)

    from dataclasses import replace

    generator = torch.Generator().manual_seed(5)
    gate_up, down = torch.randn(8, 12, 20, generator=generator), torch.randn(8, 20, 6, generator=generator)
    packed = [quantise(weight, Encoding.INT4, name="w") for weight in (gate_up, down)]
    module = PackedExperts(*packed, replace(reference, experts=experts), Scratch(CPU, torch.float32))
    x_ND = torch.randn(3, 20, generator=generator)
    weights_NK, indices_NK = torch.rand(3, 2, generator=generator), torch.tensor([[5, 1], [1, 7], [7, 5]])
    full = [weight.dequantise(torch.float32) for weight in packed]
    expected = reference.experts(x_ND, weights_NK, indices_NK, *full)
    assert torch.equal(module(x_ND, weights_NK, indices_NK), expected)
    module(x_ND.repeat(2, 1), weights_NK.repeat(2, 1), indices_NK.repeat(2, 1))
    assert seen == [3, 8]


def test_scratch_is_allocated_once() -> None:
    scratch = Scratch(CPU, torch.float32)
    small, large = (quantise(torch.ones(rows, 64), Encoding.INT8, name="w") for rows in (2, 9))
    layers = [PackedLinear(small, scratch), PackedLinear(large, scratch)]
    places = {scratch.expand(layer.packed)[0].data_ptr() for layer in layers}
    assert len(places) == 1
