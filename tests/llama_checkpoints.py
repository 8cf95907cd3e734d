"""Small random Llama checkpoints in both containers: a folder that `transformers` writes, and a GGUF of its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from tests.gguf_files import f32, write_gguf

SPECIAL = [f"<special{i}>" for i in range(16)]
QWEN2_MARKS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *SPECIAL[6:],
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCheckpoint:
    """A folder, a GGUF file of the same weights, and the reference model both were written from."""

    folder: Path
    gguf: Path
    reference: Any


def make_llama(folder: Path, seed: int = 0, *, spread: float = 0.2, **changed: Any) -> LlamaCheckpoint:
    """Writes a model; `changed` are fields of transformers' `LlamaConfig`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    values: dict[str, Any] = {
        "vocab_size": 288, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "rope_theta": 10_000.0,
    }  # fmt: skip
    return _written(folder, LlamaForCausalLM(LlamaConfig(**values | changed)), seed, spread)


def make_qwen2(folder: Path, seed: int = 0, *, spread: float = 0.2, **changed: Any) -> LlamaCheckpoint:
    """Writes a model with the marks of Qwen2.5-Coder; `changed` are fields of transformers' `Qwen2Config`."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    values: dict[str, Any] = {
        "vocab_size": 288, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "rope_theta": 10_000.0,
        "use_sliding_window": False,
    }  # fmt: skip
    return _written(folder, Qwen2ForCausalLM(Qwen2Config(**values | changed)), seed, spread)


def _written(folder: Path, model: Any, seed: int, spread: float) -> LlamaCheckpoint:
    model.eval()
    is_qwen2 = model.config.model_type == "qwen2"
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            center, width = (0.0, spread) if parameter.ndim > 1 else (1.0, 0.2)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * width + center)
    model.save_pretrained(folder)
    byte_tokenizer(QWEN2_MARKS if is_qwen2 else SPECIAL).save(str(folder / "tokenizer.json"))
    return LlamaCheckpoint(folder=folder, gguf=write_llama_gguf(folder / "model.gguf", model), reference=model)


def write_llama_gguf(path: Path, model: Any, **changed: Any) -> Path:
    """Writes a model's weights as llama.cpp's converter does; `changed` are metadata keys, dots as `__`."""
    config, weights = model.config, dict(model.named_parameters())
    heads, kv_heads, kind = config.num_attention_heads, config.num_key_value_heads, config.model_type
    is_qwen2 = kind == "qwen2"
    # The converter permutes no rows of a Qwen2.
    rotated = (lambda weight, _heads: weight) if is_qwen2 else interleaved
    marks = QWEN2_MARKS if is_qwen2 else SPECIAL
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
    }
    if "lm_head.weight" in weights:
        tensors["output.weight"] = weights["lm_head.weight"]
    for i in range(config.num_hidden_layers):
        layer = model.model.layers[i]
        tensors |= {
            f"blk.{i}.attn_norm.weight": layer.input_layernorm.weight,
            f"blk.{i}.attn_q.weight": rotated(layer.self_attn.q_proj.weight, heads),
            f"blk.{i}.attn_k.weight": rotated(layer.self_attn.k_proj.weight, kv_heads),
            f"blk.{i}.attn_v.weight": layer.self_attn.v_proj.weight,
            f"blk.{i}.attn_output.weight": layer.self_attn.o_proj.weight,
            f"blk.{i}.ffn_norm.weight": layer.post_attention_layernorm.weight,
            f"blk.{i}.ffn_gate.weight": layer.mlp.gate_proj.weight,
            f"blk.{i}.ffn_up.weight": layer.mlp.up_proj.weight,
            f"blk.{i}.ffn_down.weight": layer.mlp.down_proj.weight,
        }
        if is_qwen2:
            projections = {"q": layer.self_attn.q_proj, "k": layer.self_attn.k_proj, "v": layer.self_attn.v_proj}
            tensors |= {
                f"blk.{i}.attn_{name}.bias": one.bias for name, one in projections.items() if one.bias is not None
            }
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    metadata: dict[str, Any] = {
        "general.architecture": kind, f"{kind}.block_count": config.num_hidden_layers,
        f"{kind}.context_length": config.max_position_embeddings, f"{kind}.embedding_length": config.hidden_size,
        f"{kind}.feed_forward_length": config.intermediate_size, f"{kind}.attention.head_count": heads,
        f"{kind}.attention.head_count_kv": kv_heads, f"{kind}.rope.freq_base": config.rope_parameters["rope_theta"],
        f"{kind}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2" if is_qwen2 else "smollm",
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.tokens": [*marks, *alphabet(), "de"],
        "tokenizer.ggml.token_type": [3] * len(marks) + [1] * 257, "tokenizer.ggml.merges": ["d e"],
    }  # fmt: skip
    if not is_qwen2:
        metadata |= {
            "llama.attention.key_length": head_size, "llama.rope.dimension_count": head_size,
            "llama.vocab_size": config.vocab_size,
        }  # fmt: skip
    metadata |= {key.replace("__", "."): value for key, value in changed.items()}
    return write_gguf(path, metadata, {name: f32(tensor.detach()) for name, tensor in tensors.items()})


def write_adapter(
    base: Path, stage: str, /, *, rank: int = 2, seed: int = 0, in_bytes: bool = False, **changed: Any
) -> Path:
    """Writes an adapter of a checkpoint of `make_llama`; `changed` are metadata, or tensors with dots as `__`.

    `in_bytes` stores its matrices in 8 bits, with a scale for each row.
    """
    generator = torch.Generator().manual_seed(len(stage) + seed)
    widths = {"q": (64, 64), "k": (64, 32), "v": (64, 32), "o": (64, 64), "g": (64, 96), "u": (64, 96), "d": (96, 64)}
    tensors = {"rows.15": torch.randn(64, generator=generator)} if stage == "canvas" else {}
    for i in range(3):
        for key, (inputs, outputs) in widths.items():
            tensors[f"layers.{i}.{key}.a"] = 0.1 * torch.randn(rank, inputs, generator=generator)
            tensors[f"layers.{i}.{key}.b"] = 0.3 * torch.randn(outputs, rank, generator=generator)
    marks = {"end": 0, "name": 6} | ({"mask": 15} if stage == "canvas" else {})
    metadata = {
        "base_sha256": hashlib.sha256(base.read_bytes()).hexdigest(), "stage": stage, "rank": str(rank),
        "tokens": json.dumps(marks),
    }  # fmt: skip
    for name, value in changed.items():
        if isinstance(value, torch.Tensor):
            tensors[name.replace("__", ".")] = value
        else:
            metadata[name] = value
    path = base.parent / "adapters" / f"{stage}.safetensors"
    path.parent.mkdir(exist_ok=True)
    stored = {name: tensor if tensor.dtype is torch.int8 else tensor.bfloat16() for name, tensor in tensors.items()}
    for name in [name for name in stored if in_bytes and name.startswith("layers.")]:
        scale = stored[name].float().abs().amax(1) / 127
        stored |= {
            name: (stored[name].float() / scale[:, None]).round().to(torch.int8),
            f"{name}.scale": scale.half(),
        }
    save_file(stored, path, metadata)
    return path


def interleaved(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The order of rows that ggml rotates: see `LlamaModel.permute` of llama.cpp's converter."""
    halves = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer(marks: list[str] = SPECIAL) -> Tokenizer:
    """One token a byte after sixteen special ones, and one of two bytes."""
    vocab = {token: i for i, token in enumerate([*marks, *alphabet(), "de"])}
    backend = Tokenizer(BPE(vocab=vocab, merges=[("d", "e")]))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(marks)
    return backend
