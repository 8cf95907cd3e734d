"""Fused passes in plain PyTorch against the layers they replace, conversion of weights, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.backends import select
from dgemma_engine.backends.cuda.fuse import fuse
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.weights import dense_weight, expert_weights
from dgemma_engine.backends.select import load_runnable
from dgemma_engine.checkpoint.loader import Residence, load_model
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.errors import CheckpointError
from dgemma_engine.infill.engine import Engine
from dgemma_engine.model import ops as ops_module
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Context, Extent
from dgemma_engine.quantization.quantized_linear import PackedExperts, PackedLinear, Scratch
from dgemma_engine.quantization.quantized_tensor import Encoding, QuantisedTensor, quantise
from dgemma_engine.scheduling.timing import Cancel
from dgemma_kernels.ops import experts
from dgemma_kernels.reference.quantization import restore_weight
from dgemma_kernels.tensors.formats import WeightFormat

from tests.engine.fused_models import FULL, SLIDING, everything, few, load, write
from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
SHAPES: dict[str, dict[str, Any]] = {
    "mixed layers": {"layer_types": [SLIDING, FULL, SLIDING]},
    "full layers only": {"layer_types": [FULL, FULL]},
    "many kv heads": {"num_key_value_heads": 4, "num_global_key_value_heads": 4},
    "window of two": {"sliding_window": 2, "layer_types": [SLIDING]},
    "every expert": {"num_experts": 3, "top_k_experts": 3},
    "one expert": {"num_experts": 8, "top_k_experts": 1},
}


@pytest.mark.parametrize("name", SHAPES)
def test_outputs_are_those_of_the_plain_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window = SHAPES[name].get("sliding_window", 8)
    monkeypatch.setattr("tests.engine.fused_models.WINDOW", window)
    folder = write(tmp_path, **SHAPES[name])
    expected = everything(load(folder, Ops.reference(), torch.float32, CPU), CPU)
    got = everything(load(folder, Ops.fused_reference(), torch.float32, CPU), CPU)
    for key, theirs in expected.items():
        assert torch.allclose(got[key], theirs, atol=model_error(64) * float(theirs.abs().max())), key


@pytest.mark.parametrize("form", list(Format))
def test_quantised_weights_compute_what_expanded_ones_do(tmp_path: Path, form: Format) -> None:
    """Where weights are 8-bit floats, activations are rounded to 8 bits too, hence the larger tolerance."""
    folder = write(tmp_path, form, num_experts=3, top_k_experts=3)
    expected = few(load(folder, Ops.reference(), torch.float32, CPU), CPU)
    model = load(folder, Ops.fused_reference(), torch.bfloat16, CPU)
    assert isinstance(model, FusedModel) and len(model.weight_formats) > 1
    for key, theirs in few(model, CPU).items():
        error = (theirs.float() - expected[key]).square().mean().sqrt() / expected[key].square().mean().sqrt()
        assert float(error) < (0.2 if form is Format.FP8 else 0.1), key


def test_fusing_releases_the_weights_of_the_plain_model(tmp_path: Path) -> None:
    """Weights in the fused layout are not kept in the plain one as well."""
    ops = Ops.fused_reference()
    plain = load_model(write(tmp_path), ops, device=CPU, dtype=torch.float32, residence=Residence.PACKED)
    fuse(plain, ops)
    assert sum(parameter.numel() for parameter in plain.layers.parameters()) == 0


def test_kernels_refuse_a_processor(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot run on cpu: use Ops.reference\(\) there, or set TRITON_INTERP"):
        load(write(tmp_path), Ops.triton(), torch.float32, CPU)


@pytest.mark.parametrize(("capability", "form", "message"), [
    ((7, 5), None, "Old Card has no bfloat16"),
    ((8, 6), Format.FP8, "Old Card has no 8-bit floats, .* --format int4 or int8"),
    ((8, 6), Format.NVFP4, "no 8-bit floats"),
    ((8, 6), Format.INT4, None),
    ((8, 9), Format.FP8, None),
])  # fmt: skip
def test_cards_without_the_number_format_are_refused(
    capability: tuple[int, int], form: Format | None, message: str | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Old Card")
    monkeypatch.setattr(ops_module, "_require_compiler", lambda _device: None)
    model = load(write(tmp_path, form), Ops.fused_reference(), torch.bfloat16, CPU)
    assert isinstance(model, FusedModel)
    require = Ops.triton().fused.require  # pyright: ignore[reportOptionalMemberAccess]
    if message is None:
        require(torch.device("cuda"), model.weight_formats)
    else:
        with pytest.raises(CheckpointError, match=message):
            require(torch.device("cuda"), model.weight_formats)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def regrouped(weight: torch.Tensor, size: int) -> QuantisedTensor:
    """An int8 weight with groups of another size."""
    grouped = weight.unflatten(-1, (-1, size))
    scales = (grouped.abs().amax(-1) / 127).bfloat16()
    codes = (grouped / scales.float()[..., None]).round().clamp(-128, 127).to(torch.int8).flatten(-2)
    return QuantisedTensor(
        encoding=Encoding.INT8, codes=codes, scales=scales, row_scales=None, num_columns=weight.shape[-1],
        group_size=size,
    )  # fmt: skip


@pytest.mark.parametrize(("size", "kept"), [(64, True), (128, True), (256, True), (32, False), (16, False)])
def test_groups_of_other_sizes_keep_their_values(size: int, kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    packed = regrouped(draw(5, 256), size)
    with caplog.at_level(logging.WARNING):
        weight = dense_weight(PackedLinear(packed, Scratch(CPU, torch.float32)), torch.float32)
    assert weight.format is (WeightFormat.INT8 if kept else WeightFormat.PLAIN)
    assert torch.equal(restore_weight(weight), packed.dequantise(torch.float32))
    assert ("dgemma-engine quantize" in caplog.text) is not kept


@pytest.mark.parametrize("encoding", list(Encoding))
def test_columns_that_no_group_divides_are_expanded(encoding: Encoding) -> None:
    packed = quantise(draw(6, 72), encoding, name="w")
    weight = dense_weight(PackedLinear(packed, Scratch(CPU, torch.float32)), torch.float32)
    assert (weight.format is WeightFormat.PLAIN) is (encoding is not Encoding.FP8)
    assert torch.allclose(restore_weight(weight), packed.dequantise(torch.float32), atol=1e-6)


@pytest.mark.parametrize(("inner", "encoding", "expected"), [
    (64, Encoding.INT4, WeightFormat.INT4), (40, Encoding.INT4, WeightFormat.PLAIN),
    (40, Encoding.FP8, WeightFormat.PLAIN), (64, Encoding.FP8, WeightFormat.FP8),
])  # fmt: skip
def test_both_matrices_of_experts_are_of_one_format(inner: int, encoding: Encoding, expected: WeightFormat) -> None:
    gate_up, down = (quantise(draw(*shape), encoding, name="w") for shape in ((3, 2 * inner, 64), (3, 64, inner)))
    module = PackedExperts(gate_up, down, Ops.reference(), Scratch(CPU, torch.float32))
    weights = expert_weights(module, torch.float32)
    assert [weight.format for weight in weights] == [expected] * 2
    for weight, packed in zip(weights, (gate_up, down), strict=True):
        assert torch.allclose(restore_weight(weight), packed.dequantise(torch.float32), atol=1e-6)


def test_engine_answers_as_it_does_without_fusing(
    make_checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Canvases by captured steps, ranking and the left-to-right check: the same texts and the same number of steps."""
    monkeypatch.setattr(select, "weight_dtype", lambda _device: torch.float32)
    folder = make_checkpoint(seed=3, spread=0.1, vocab_size=320).folder
    engines = [
        Engine.load(folder, device="cpu", report=lambda _percent, _message: None, ops=ops)
        for ops in (Ops.reference(), Ops.fused_reference())
    ]
    for seed, extent in ((1, Extent.LINE), (2, Extent.BLOCK), (3, Extent.LINE)):
        context = Context(
            document="a",
            prefix="def f(a, b):\n    return a",
            suffix=" + b\n",
            extent=extent,
            seed=seed,
            deadline_ms=60_000,
        )
        ranked = [one.ranked(context, Cancel(deadline_s=60.0, clock=lambda: 0.0)) for one in engines]
        assert [one.proposal.text for one in ranked[1]] == [one.proposal.text for one in ranked[0]]
    fused_engine = engines[1]
    graphs = fused_engine._model.graphs  # pyright: ignore
    assert graphs.num_captured > 0, "steps that repeat are captured"
    fused_engine._pipeline.prompts.clear()  # pyright: ignore[reportPrivateUsage]
    assert not graphs._known, "graphs of prompts are dropped with the prompts when memory runs out"


def test_routing_resets_the_counter_that_a_failed_launch_left(tmp_path: Path) -> None:
    model = load(write(tmp_path), Ops.fused_reference(), torch.float32, CPU)
    assert isinstance(model, FusedModel)
    model._arrivals_1.fill_(3)
    few(model, CPU)
    assert model._arrivals_1.item() == 0


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Failed to find C compiler. Please specify via CC"), OSError("Python.h: No such file\nmore")],
)
def test_missing_compiler_is_named_before_a_weight_is_read(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_constants: object) -> None:
        raise error

    monkeypatch.setattr(ops_module, "_require_card", lambda _device, _formats: None)
    monkeypatch.setattr(experts, "launch", fail)
    monkeypatch.setattr(select, "load_model", lambda *_args, **_kwargs: pytest.fail("weights were read"))
    with pytest.raises(
        CheckpointError, match=r"Triton cannot build GPU kernels here \(.*\): install a C comp"
    ) as caught:
        load_runnable(write(tmp_path), device=CPU, ops=Ops.triton(), prompt_tokens=64, report=lambda _percent: None)
    assert "\n" not in str(caught.value) and "apt install gcc python3-dev" in str(caught.value)


def test_card_that_fails_is_not_taken_for_a_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_constants: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(ops_module, "_require_card", lambda _device, _formats: None)
    monkeypatch.setattr(experts, "launch", fail)
    fused = Ops.triton().fused
    assert fused is not None
    with pytest.raises(torch.AcceleratorError):
        fused.require(CPU, frozenset())
