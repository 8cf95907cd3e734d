"""A packed Llama or Qwen2 against the plain one of the same weights: every entry point, up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.families.llama.adaptation import PROJECTIONS, adapt, adapter_beside, merge
from dgemma_engine.families.llama.adapter import STAGES, Adapter, Adapters
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.packed_layers import pack_adapter
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.model.ops import Ops
from dgemma_kernels.packing.cpu import PackedMatrix
from dgemma_kernels.packing.few_bits import COMPACT, DENSE, ProductKinds, RowWeights
from torch import Tensor

from tests.four_bit_weights import evenly_spaced
from tests.llama_checkpoints import LlamaCheckpoint, make_llama, make_qwen2, write_adapter
from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
# Tolerance as a share of the largest logit: weights of 8 bits err by 1/254 of the largest, in three random layers.
FEW_DIGITS = 16 / 254


def draw_ids(seed: int, length: int) -> Tensor:
    return torch.randint(0, 288, (1, length), generator=torch.Generator().manual_seed(seed))


def load(path: Path, dtype: torch.dtype) -> LlamaModel:
    return load_llama(path, Ops.reference(), device=CPU, dtype=dtype)


@torch.inference_mode()
def everything(model: DiffusionModel, adapter: ModelAdapter | None = None) -> dict[str, Tensor]:
    """Returns the logits of every entry point; a small cache has to grow."""
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU, adapter=adapter)
    found = {"encode": model.encode(draw_ids(1, 9), cache)}
    model.prefill(draw_ids(2, 70), cache)
    found["token"] = model.encode(draw_ids(3, 1), cache)
    found["three"] = model.encode(draw_ids(4, 3), cache)
    found["canvas"] = model.decode(draw_ids(5, 12), cache)
    row_L = torch.tensor([0] * 5 + [1] * 7)
    packed = masks.packed(row_L, num_past=cache.length, sliding_window=model.config.sliding_window)
    positions = (cache.length + torch.cat((torch.arange(5), torch.arange(7))))[None]
    found["rows"] = model.decode(draw_ids(5, 12), cache, positions_BL=positions, attention_masks=packed)
    other = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU, adapter=adapter)
    model.prefill(draw_ids(7, 20), other)
    passes = [CanvasPass(canvas_1L=draw_ids(seed, 3 + seed), cache=each) for seed, each in ((8, cache), (9, other))]
    found |= {f"together {i}": hidden for i, hidden in enumerate(model.decode_together(passes))}
    found["after"] = model.decode_after(draw_ids(6, 4), draw_ids(5, 12), cache)
    # Prompts of several pieces.
    found["long"] = model.encode(draw_ids(10, 290), cache)
    model.prefill(draw_ids(11, 260), cache)
    found["after long"] = model.encode(draw_ids(12, 2), cache)
    return {name: model.logits(hidden) for name, hidden in found.items()}


def input_levels() -> int:
    """Returns to how many levels this processor's 8-bit products round inputs; 0 where it has no exact ones."""
    return PackedMatrix(torch.eye(16), int8=True).few_bits.input_levels


INT8 = ProductKinds(row=RowWeights.INT4, int8_mlp=True)
IN_FOUR_BITS = [row for row in RowWeights if row.in_four_bits]
KINDS = [
    *(ProductKinds(row=row, int8_mlp=False) for row in RowWeights),
    *(ProductKinds(row=row, int8_mlp=True) for row in (RowWeights.INT8, RowWeights.INT4)),
    COMPACT,
]


def few_digits(kinds: ProductKinds) -> float:
    """Returns the tolerance as a share of the largest logit: inputs of 7 bits are twice as coarse as weights."""
    return FEW_DIGITS * (2 if kinds.int8_mlp and input_levels() == 63 else 1)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("make", [make_llama, make_qwen2])
def test_packed_model_is_the_plain_one(
    tmp_path: Path, make: Callable[..., LlamaCheckpoint], dtype: torch.dtype, kinds: ProductKinds, tied: bool
) -> None:
    path = make(tmp_path, spread=0.1, tie_word_embeddings=tied).gguf
    plain, packed = load(path, dtype), PackedLlama(load(path, dtype), kinds)
    exact = everything(load(path, torch.float32))
    is_rounded = dtype is torch.bfloat16 or kinds.int8_mlp
    for name, logits in everything(packed).items():
        # One row may read weights in 8 bits (random ones were not stored in 4); what follows reads its keys and values.
        is_rounded |= name == "token" and kinds.row is not RowWeights.DENSE
        error = (logits - exact[name]).abs().max() / exact[name].abs().max()
        assert error <= (few_digits(kinds) if is_rounded else model_error(64)), (name, error)
    assert packed.is_compiled and not packed.uncompiled_reason
    assert packed.number_format.startswith(str(dtype).removeprefix("torch."))
    assert ("for single tokens 8 bits" in packed.number_format) == (kinds.row is not RowWeights.DENSE)
    in_eight_bits = ["in MLPs 8 bits", "in MLPs and output matrix 8 bits"]
    expected = [name for name in in_eight_bits if (name == in_eight_bits[1]) == kinds.is_compact]
    found = [name for name in in_eight_bits if name in packed.number_format]
    assert found == (expected if kinds.int8_mlp and input_levels() > 0 else [])
    # Random weights have no copy in 4 bits.
    assert packed.checked_at_once == (8 if kinds.is_compact and input_levels() > 0 else 1)
    assert not plain.is_compiled and plain.checked_at_once == 1


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_compact_embeddings_are_those_of_the_checkpoint_within_rounding(tmp_path: Path, tied: bool) -> None:
    """Rounding errs by at most half a step of 8 bits of a row's largest value; a mixture of rows errs no more."""
    path = make_qwen2(tmp_path, tie_word_embeddings=tied).gguf
    exact_VD = load(path, torch.float32).embed_tokens.weight.detach()
    packed = PackedLlama(load(path, torch.float32), COMPACT)
    half_V = exact_VD.abs().amax(1) * (0.5 / 127 + model_error(1))
    ids = draw_ids(1, 40)
    error_TD = (packed.embed(ids) - exact_VD[ids]).abs()[0]
    assert error_TD.max() > 0 and (error_TD <= half_V[ids[0], None]).all()
    probs = torch.rand(1, 5, 288, generator=torch.Generator().manual_seed(1)).softmax(-1)
    assert (packed.soft_embeddings(probs) - probs @ exact_VD).abs().max() <= half_V.max()


@pytest.mark.parametrize("name", ["gate_up_proj", "down_proj"])
@torch.inference_mode()
def test_matrix_without_products_in_eight_bits_does_not_affect_the_others(tmp_path: Path, name: str) -> None:
    """A NaN weight fails the check for exact products; the outputs that it reaches are NaN, and nothing is raised."""
    model = load(make_llama(tmp_path).gguf, torch.bfloat16)
    layer: Any = model.layers[0]
    getattr(layer, name).weight[0, 0] = float("nan")
    packed = PackedLlama(model, INT8)
    cache = PromptCache(packed.config, capacity=4, dtype=packed.dtype, device=CPU)
    assert packed.encode(draw_ids(1, 5), cache).shape[1] == 5
    assert ("in MLPs 8 bits" in packed.number_format) == (input_levels() > 0)


def test_several_rows_are_refused(tmp_path: Path) -> None:
    model = PackedLlama(load(make_llama(tmp_path).gguf, torch.float32), DENSE)
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU)
    with pytest.raises(ValueError, match="too many values to unpack"):
        model.encode(draw_ids(1, 4).expand(2, -1), cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_model_adds_the_terms_of_a_canvas_adapter(tmp_path: Path, dtype: torch.dtype) -> None:
    path = make_llama(tmp_path, spread=0.1).gguf
    for stage in STAGES:
        write_adapter(path, stage)
    models = {name: load(path, kind) for name, kind in {"exact": torch.float32, "packed": dtype}.items()}
    for model in models.values():
        adapt(model, Adapters.find(path))
    exact, base = everything(models["exact"]), everything(load(path, torch.float32))
    assert (exact["canvas"] - base["canvas"]).abs().max() > 0.1
    packed = PackedLlama(models["packed"], DENSE)
    assert packed.is_compiled
    for name, logits in everything(packed).items():
        error = (logits - exact[name]).abs().max() / exact[name].abs().max()
        assert error <= (FEW_DIGITS if dtype is torch.bfloat16 else model_error(64)), (name, error)


def with_canvas(path: Path, dtype: torch.dtype) -> LlamaModel:
    """A base with a canvas adapter, whose terms a repository's adapter is added to."""
    model = load(path, dtype)
    adapt(model, Adapters.find(path))
    return model


@pytest.fixture
def of_repository(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A base that has a canvas adapter, and the factors of a repository's adapter of it."""
    path = make_llama(tmp_path, spread=0.1).gguf
    write_adapter(path, "canvas")
    (tmp_path / "repository").mkdir()
    stored = write_adapter(path, "causal", rank=3).rename(tmp_path / "repository" / "causal.safetensors")
    return path, Adapter.read(stored).tensors(load(path, torch.float32).config)


def test_adapter_beside_a_plain_model_is_the_merged_one(of_repository: tuple[Path, dict[str, Tensor]]) -> None:
    path, tensors = of_repository
    merged, beside = with_canvas(path, torch.float32), with_canvas(path, torch.float32)
    base = everything(beside)
    merge(merged, tensors, base=merged)
    exact = everything(merged)
    for name, logits in everything(beside, adapter_beside(beside, tensors)).items():
        assert (logits - exact[name]).abs().max() <= model_error(64) * exact[name].abs().max(), name
        assert (logits - base[name]).abs().max() > 0.1, name
    assert all(map(torch.equal, everything(beside).values(), base.values()))


@pytest.mark.parametrize("kinds", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapter_beside_a_packed_model_is_the_merged_one(
    of_repository: tuple[Path, dict[str, Tensor]], dtype: torch.dtype, kinds: ProductKinds
) -> None:
    path, tensors = of_repository
    merged = with_canvas(path, torch.float32)
    merge(merged, tensors, base=merged)
    exact = everything(merged)
    packed = PackedLlama(with_canvas(path, dtype), kinds)
    base, adapter = everything(packed), pack_adapter(tensors, packed.config.num_layers)
    assert adapter.num_bytes == sum(tensor.nbytes for name, tensor in tensors.items())
    is_rounded = dtype is torch.bfloat16 or kinds.int8_mlp
    for name, logits in everything(packed, adapter).items():
        is_rounded |= name == "token" and kinds.row is not RowWeights.DENSE
        error = (logits - exact[name]).abs().max() / exact[name].abs().max()
        assert error <= (few_digits(kinds) if is_rounded else model_error(64)), (name, error)
        assert (logits - base[name]).abs().max() > 0.1, name
    assert packed.is_compiled
    # Passes without an adapter give what they gave before.
    assert all(map(torch.equal, everything(packed).values(), base.values()))


def stored_in_four_bits(path: Path, dtype: torch.dtype) -> LlamaModel:
    """A model whose projections have 16 evenly spaced values in each group of inputs."""
    model = with_canvas(path, dtype)
    for layer, exact in zip(model.layers, load(path, torch.float32).layers, strict=True):
        for name in PROJECTIONS:
            weights = [each.get_submodule(name).get_parameter("weight") for each in (layer, exact)]
            with torch.no_grad():
                weights[0].copy_(evenly_spaced(weights[1]))
    return model


@pytest.mark.parametrize("row", IN_FOUR_BITS)
@pytest.mark.parametrize("int8_mlp", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_repository", [False, True])
def test_few_tokens_read_a_base_in_four_bits_beside_its_merged_adapter(
    of_repository: tuple[Path, dict[str, Tensor]],
    dtype: torch.dtype,
    row: RowWeights,
    int8_mlp: bool,
    with_repository: bool,
) -> None:
    path, of_another = of_repository
    merged, exact_base = stored_in_four_bits(path, torch.float32), stored_in_four_bits(path, torch.float32)
    own_base = stored_in_four_bits(path, dtype)
    causal = Adapter.read(write_adapter(path, "causal", seed=1)).tensors(merged.config)
    base = everything(exact_base)
    merge(merged, causal, base=exact_base)
    if with_repository:
        merge(merged, of_another, base=merged)
    exact = everything(merged)
    kinds = ProductKinds(row=row, int8_mlp=int8_mlp)
    packed = PackedLlama(own_base, kinds, causal)
    adapter = pack_adapter(of_another, packed.config.num_layers) if with_repository else None
    if "for single tokens" not in packed.number_format:
        pytest.skip("this torch has no copy for one row")
    assert "for single tokens 4 " in packed.number_format
    assert packed.checked_at_once == (4 if row is RowWeights.FEW_INT4 else 1)
    is_rounded = dtype is torch.bfloat16 or int8_mlp
    for name, logits in everything(packed, adapter).items():
        is_rounded |= name == "token"
        error = (logits - exact[name]).abs().max() / exact[name].abs().max()
        assert error <= (few_digits(kinds) if is_rounded else model_error(64)), (name, error)
        assert (logits - base[name]).abs().max() > 0.1, name
    assert packed.is_compiled
