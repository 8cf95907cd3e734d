"""Small DiffusionGemma GGUF files with random weights, written by the `gguf` package, and folders of the same weights.

The folder holds what the package's own dequantisation makes of the file's blocks, in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

SLIDING, FULL = "sliding_attention", "full_attention"
VOCABULARY, HIDDEN, DENSE, EXPERT, NUM_EXPERTS = 304, 256, 96, 64, 4
KINDS = (SLIDING, FULL)
HEADS, KV_HEADS, HEAD = 4, {SLIDING: 2, FULL: 1}, {SLIDING: 32, FULL: 64}
# For types that the package cannot quantise: the offset of each 16-bit scale in a block, and its magnitude, so that
# values are about 0.1.
_SCALES: Mapping[str, dict[int, float]] = {
    "Q4_K": {0: 6e-4, 2: 45e-4},
    "Q5_K": {0: 3e-4, 2: 45e-4},
    "Q6_K": {208: 15e-5},
    "IQ4_NL": {0: 2e-3},
    "IQ4_XS": {0: 15e-5},
}
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
TOKENS = [
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<table>",
    *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(0x61, 0x7B)), "\u2581", "\n", "\n\n", "\u2581\u2581",
    "de", "def", "\u2581x", "=",
]  # fmt: skip
MERGES = ["\n \n", "\u2581 \u2581", "d e", "de f", "\u2581 x"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufCheckpoint:
    """A file, and a folder of the same weights."""

    file: Path
    folder: Path


@dataclass(slots=True)
class RandomTensors:
    """Random tensors, in blocks for the file and as floats for the folder."""

    kind: str
    generator: np.random.Generator
    stored: dict[str, tuple[np.ndarray[Any, Any], str]] = field(default_factory=dict[str, Any])
    floats: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    def matrix(self, name: str, key: str, *shape: int) -> None:
        import gguf

        kind = self.kind if shape[-1] % 256 == 0 else _FALLBACK.get(self.kind, self.kind)
        number = gguf.GGMLQuantizationType[kind]
        if kind in _SCALES:
            per_block, num_bytes = gguf.GGML_QUANT_SIZES[number]
            blocks = self.generator.integers(0, 256, (*shape[:-1], shape[-1] // per_block, num_bytes), dtype=np.uint8)
            for offset, scale in _SCALES[kind].items():
                halves = (scale * self.generator.uniform(0.8, 1.2, (*blocks.shape[:-1], 1))).astype(np.float16)
                blocks[..., offset : offset + 2] = halves.view(np.uint8)
            raw = blocks.reshape(*shape[:-1], -1)
        else:
            values = (self.generator.standard_normal(shape) * 0.1).astype(np.float32)
            raw = values if kind == "F32" else gguf.quants.quantize(values, number)
        self.stored[name] = (raw, kind)
        self.floats[key] = torch.from_numpy(np.array(gguf.quants.dequantize(raw, number), dtype=np.float32)).view(shape)

    def vector(self, name: str, key: str, *shape: int, spread: float = 0.2) -> None:
        values = (self.generator.standard_normal(shape) * spread + (0 if len(shape) > 1 else 1)).astype(np.float32)
        self.stored[name] = (values, "F32")
        self.floats[key] = torch.from_numpy(values.copy())


def write_checkpoint(place: Path, kind: str, *, top_k: int = NUM_EXPERTS, seed: int = 0) -> GgufCheckpoint:
    """Writes file and folder; matrices are stored as `kind`, or as what llama.cpp takes where its blocks divide no row.

    Args:
        place: an empty folder.
        kind: ggml's name of the type.
        top_k: experts of a token; with all of them, rounding cannot change the choice.
        seed: of the weights.
    """
    pytest.importorskip("gguf", reason="GGUF files of DiffusionGemma are not read: the package gguf is not installed")
    tensors = random_tensors(kind, seed)
    folder = place / "folder"
    folder.mkdir()
    save_file(tensors.floats, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(top_k)))
    return GgufCheckpoint(file=write_file(place / "model.gguf", tensors.stored, metadata(top_k)), folder=folder)


def write_file(path: Path, stored: Mapping[str, tuple[np.ndarray[Any, Any], str]], keys: Mapping[str, Any]) -> Path:
    """Writes a file with the package `gguf`."""
    import gguf

    writer = gguf.GGUFWriter(path, "diffusion-gemma")
    for key, value in keys.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case _:
                writer.add_array(key, value)
    for name, (raw, kind) in stored.items():
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_tensors(kind: str, seed: int) -> RandomTensors:
    """Returns all tensors of a model."""
    made = RandomTensors(kind, np.random.default_rng(seed))
    decoder = "model.decoder."
    made.matrix("token_embd.weight", f"{decoder}embed_tokens.weight", VOCABULARY, HIDDEN)
    made.vector("output_norm.weight", f"{decoder}norm.weight", HIDDEN)
    made.vector("self_cond_pre_norm.weight", f"{decoder}self_conditioning.pre_norm.weight", HIDDEN)
    _gated(made, "self_cond_", f"{decoder}self_conditioning.")
    for layer, layer_kind in enumerate(KINDS):
        block, prefix = f"blk.{layer}.", f"{decoder}layers.{layer}."
        head, attention = HEAD[layer_kind], f"{prefix}self_attn."
        made.matrix(f"{block}attn_q.weight", f"{attention}q_proj.weight", HEADS * head, HIDDEN)
        made.matrix(f"{block}attn_k.weight", f"{attention}k_proj.weight", KV_HEADS[layer_kind] * head, HIDDEN)
        if layer_kind == SLIDING:
            made.matrix(f"{block}attn_v.weight", f"{attention}v_proj.weight", KV_HEADS[layer_kind] * head, HIDDEN)
        made.matrix(f"{block}attn_output.weight", f"{attention}o_proj.weight", HIDDEN, HEADS * head)
        for name in "qk":
            made.vector(f"{block}attn_{name}_norm.weight", f"{attention}{name}_norm.weight", head)
        _gated(made, f"{block}ffn_", f"{prefix}mlp.")
        experts = f"{prefix}experts."
        made.matrix(f"{block}ffn_gate_up_exps.weight", f"{experts}gate_up_proj", NUM_EXPERTS, 2 * EXPERT, HIDDEN)
        made.matrix(f"{block}ffn_down_exps.weight", f"{experts}down_proj", NUM_EXPERTS, HIDDEN, EXPERT)
        made.vector(f"{block}ffn_gate_inp.weight", f"{prefix}router.proj.weight", NUM_EXPERTS, HIDDEN)
        made.vector(f"{block}ffn_gate_inp.scale", f"{prefix}router.scale", HIDDEN)
        made.vector(f"{block}ffn_down_exps.scale", f"{prefix}router.per_expert_scale", NUM_EXPERTS)
        for ours, theirs in (
            ("attn_norm", "input_layernorm"), ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm"),
            ("post_ffw_norm_1", "post_feedforward_layernorm_1"), ("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
            ("post_ffw_norm_2", "post_feedforward_layernorm_2"),
        ):  # fmt: skip
            made.vector(f"{block}{ours}.weight", f"{prefix}{theirs}.weight", HIDDEN)
        made.vector(f"{block}layer_output_scale.weight", f"{prefix}layer_scalar", 1)
        encoder = f"model.encoder.language_model.layers.{layer}.layer_scalar"
        made.vector(f"{block}enc_layer_output_scale.weight", encoder, 1)
    size = HEAD[FULL] // 2
    factors = np.array([1.0] * (size // 4) + [1e30] * (size - size // 4), dtype=np.float32)
    made.stored["rope_freqs.weight"] = (factors, "F32")
    return made


def _gated(made: RandomTensors, ours: str, theirs: str) -> None:
    for name, shape in (("gate", (DENSE, HIDDEN)), ("up", (DENSE, HIDDEN)), ("down", (HIDDEN, DENSE))):
        made.matrix(f"{ours}{name}.weight", f"{theirs}{name}_proj.weight", *shape)


def _config(top_k: int) -> dict[str, Any]:
    text: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": DENSE, "moe_intermediate_size": EXPERT,
        "num_experts": NUM_EXPERTS, "top_k_experts": top_k, "layer_types": list(KINDS), "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS[SLIDING], "num_global_key_value_heads": KV_HEADS[FULL],
        "head_dim": HEAD[SLIDING], "global_head_dim": HEAD[FULL], "sliding_window": 8, "max_position_embeddings": 1024,
        "rope_parameters": {
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
            FULL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
        },
    }  # fmt: skip
    return {"model_type": "diffusion_gemma", "canvas_length": 16, "text_config": text}


def metadata(top_k: int) -> dict[str, Any]:
    """Returns the keys of a file."""
    own: dict[str, Any] = {
        "block_count": len(KINDS), "context_length": 1024, "embedding_length": HIDDEN, "feed_forward_length": DENSE,
        "expert_feed_forward_length": EXPERT, "expert_count": NUM_EXPERTS, "expert_used_count": top_k,
        "attention.head_count": HEADS, "attention.head_count_kv": [KV_HEADS[kind] for kind in KINDS],
        "attention.key_length": HEAD[FULL], "attention.key_length_swa": HEAD[SLIDING],
        "attention.layer_norm_rms_epsilon": 1e-6, "attention.sliding_window": 8,
        "attention.sliding_window_pattern": [kind == SLIDING for kind in KINDS], "attention.causal": False,
        "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "rope.dimension_count": HEAD[FULL],
        "rope.dimension_count_swa": HEAD[SLIDING], "final_logit_softcapping": 30.0,
    }  # fmt: skip
    types = [3] * 7 + [4] + [6] * 256 + [1] * 28 + [4, 4] + [1] * (len(TOKENS) - 294)
    return {f"diffusion-gemma.{key}": value for key, value in own.items()} | {
        "diffusion.canvas_length": 16,
        "diffusion.eb_max_steps": 12,
        "diffusion.eb_t_min": 0.3,
        "diffusion.eb_entropy_bound": 0.2,
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 6,
        "tokenizer.ggml.padding_token_id": 0,
    }
