"""Small models of the released layout for tests of fused passes, and the outputs of all their operations."""

from __future__ import annotations

from pathlib import Path

import torch
from dgemma_engine.backends.cuda.fuse import fuse
from dgemma_engine.checkpoint.loader import Residence, load_model, save_checkpoint
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.model import attention_masks
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.conversion.converter import quantise_folder
from torch import Tensor

SLIDING, FULL = "sliding_attention", "full_attention"
WINDOW, VOCAB = 8, 320


def config(**changes: object) -> ModelConfig:
    """Returns a tiny configuration whose groups of 64 divide every quantised matrix."""
    text = {
        "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64, "num_experts": 4,
        "top_k_experts": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32,
        "num_global_key_value_heads": 1, "sliding_window": WINDOW, "layer_types": [SLIDING, FULL],
        "max_position_embeddings": 1024, "eos_token_id": [1],
        "rope_parameters": {
            FULL: {"rope_theta": 1e6, "partial_rotary_factor": 0.25, "rope_type": "proportional"},
            SLIDING: {"rope_theta": 1e4, "rope_type": "default"},
        },
    }  # fmt: skip
    text |= changes
    return ModelConfig.from_hf({"model_type": "diffusion_gemma", "canvas_length": 16, "text_config": text})


def write(folder: Path, form: Format | None = None, **changes: object) -> Path:
    """Writes a random checkpoint, quantised if a format is given, and returns its folder."""
    model = DiffusionGemma(config(**changes), Ops.reference())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            # Scales other than 1 show a missing one; small matrices and sharp predictions let runs end early.
            center, width = (0.0, 0.1) if tensor.ndim > 1 else (1.0, 0.2)
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * width + center)
            if name == "embed_tokens.weight":
                tensor.mul_(3)
            if name == "norm.weight":
                tensor.mul_(4)
    save_checkpoint(model, folder / "plain", dtype=torch.float32)
    if form is None:
        return folder / "plain"
    quantise_folder(folder / "plain", folder / form, form, report=lambda _percent: None)
    return folder / form


def load(folder: Path, ops: Ops, dtype: torch.dtype, device: torch.device) -> DiffusionModel:
    """Returns the model that runs with these operations."""
    return fuse(load_model(folder, ops, device=device, dtype=dtype, residence=Residence.PACKED), ops)


def draw_ids(seed: int, length: int, device: torch.device) -> Tensor:
    return torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(seed)).to(device)


def packed_rows(
    num_past: int, lengths: list[int], device: torch.device
) -> tuple[Tensor, attention_masks.AttentionMasks]:
    """Returns positions and masks of canvases that are packed into one row."""
    row_L = torch.tensor([row for row, length in enumerate(lengths) for _ in range(length)], device=device)
    offset_L = torch.cat([torch.arange(length, device=device) for length in lengths])
    return (num_past + offset_L)[None], attention_masks.packed(row_L, num_past=num_past, sliding_window=WINDOW)


def empty_cache(model: DiffusionModel) -> PromptCache:
    return PromptCache(model.config, capacity=4, dtype=model.dtype, device=model.device)


def everything(model: DiffusionModel, device: torch.device) -> dict[str, Tensor]:
    """Returns a model's outputs from every entry point; the prompt exceeds the window, and the cache has to grow."""
    cache = empty_cache(model)
    said: dict[str, Tensor] = {}
    soft = torch.randn(1, 7, model.config.hidden_size, generator=torch.Generator().manual_seed(9))
    soft_BLD = soft.to(device, model.dtype)
    with torch.inference_mode():
        said["empty prompt"] = model.decode(draw_ids(5, 7, device), cache)
        said["first encode"] = model.encode(draw_ids(1, 5, device), cache)
        model.prefill(draw_ids(2, 9, device), cache)
        said["one token"] = model.encode(draw_ids(3, 1, device), cache)
        canvas = draw_ids(5, 7, device)
        said["first step"] = model.decode(canvas, cache)
        said["zero self-conditioning"] = model.decode(canvas, cache, soft_BLD=torch.zeros_like(soft_BLD))
        positions, packed = packed_rows(cache.length, [3, 4], device)
        said["packed"] = model.decode(canvas, cache, soft_BLD=soft_BLD, positions_BL=positions, attention_masks=packed)
        positions, packed = packed_rows(cache.length + 3, [5, 2], device)
        said["packed after a block"] = model.decode_after(
            draw_ids(7, 3, device), canvas, cache, soft_BLD=soft_BLD, positions_BL=positions, attention_masks=packed
        )
        row_T = torch.tensor([0, 0, 0, 1, 1], device=device)
        position_T = torch.tensor([0, 1, 2, 0, 1], device=device) + cache.length - 1
        branches = attention_masks.branches(
            row_T, position_T, num_past=cache.length, sliding_window=WINDOW, hidden_from=cache.length - 1
        )
        said["branches"] = model.encode(
            draw_ids(8, 5, device), cache, positions_BT=position_T[None], attention_masks=branches
        )
        said["logits"] = model.logits(said["packed"])
        said["soft embeddings"] = model.soft_embeddings(said["logits"].softmax(-1))
    return said


def few(model: DiffusionModel, device: torch.device) -> dict[str, Tensor]:
    """Returns a model's outputs from a few entry points that use every operation once."""
    cache = empty_cache(model)
    said: dict[str, Tensor] = {}
    soft = torch.randn(1, 7, model.config.hidden_size, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        model.prefill(draw_ids(2, 11, device), cache)
        positions, packed = packed_rows(cache.length + 3, [5, 2], device)
        said["packed after a block"] = model.decode_after(
            draw_ids(7, 3, device), draw_ids(5, 7, device), cache, soft_BLD=soft.to(device, model.dtype),
            positions_BL=positions, attention_masks=packed,
        )  # fmt: skip
        said["logits"] = model.logits(said["packed after a block"])
        said["soft embeddings"] = model.soft_embeddings(said["logits"].softmax(-1))
    return said
