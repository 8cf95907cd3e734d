"""What the metadata of a DiffusionGemma GGUF file says of the model and of its sampler, checked.

Keys as llama.cpp's converter writes them (conversion/diffusion_gemma.py, conversion/gemma.py). What the format does not
say is as in the released model.
"""

from __future__ import annotations

from typing import Any

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.checkpoint.gguf_quantization import read_tensor
from dgemma_engine.config_values import (
    MOST_COUNT,
    MOST_POSITIONS,
    MOST_THETA,
    MOST_TOKENS,
    MOST_WIDTH,
    real_number,
    whole_number,
)
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import LayerKind, ModelConfig, RopeConfig

ARCHITECTURE = "diffusion-gemma"
ROPE_FACTORS = "rope_freqs.weight"
"""Tensor of factors of the rotary periods of full layers: 1 where a dimension rotates, else a huge number."""

_EMBEDDING = "token_embd.weight"
_STILL = 1e29
# `generation_config.json`'s names, and those of the file.
_SAMPLER_KEYS = {
    "max_denoising_steps": ("eb_max_steps", int),
    "t_min": ("eb_t_min", float),
    "t_max": ("eb_t_max", float),
    "stability_threshold": ("eb_stability_threshold", int),
    "confidence_threshold": ("eb_confidence_threshold", float),
}


def read_config(file: GgufFile) -> ModelConfig:
    """Returns the dimensions of the model in a file; reads one small tensor.

    Raises:
        CheckpointError: names the key that is missing, contradictory or not supported.
    """

    def whole(key: str, most: int, default: int | None = None, *, least: int = 1) -> int:
        return whole_number(file.path, key, file.get(key, int, default), least=least, most=most)

    def own(key: str, most: int) -> int:
        return whole(f"{ARCHITECTURE}.{key}", most)

    def real(key: str, least: float, most: float, default: float | None = None) -> float:
        return real_number(file.path, key, file.get(f"{ARCHITECTURE}.{key}", float, default), least=least, most=most)

    if _EMBEDDING not in file.tensors:
        raise CheckpointError(f"{file.path}: lacks {_EMBEDDING}; get a complete conversion of the model")
    vocab_size = whole_number(file.path, f"rows of {_EMBEDDING}", file.tensors[_EMBEDDING].shape[0], most=MOST_TOKENS)
    kinds = _layer_kinds(file, own("block_count", min(MOST_COUNT, len(file.tensors))))
    head_dim = {
        LayerKind.FULL: own("attention.key_length", MOST_WIDTH),
        LayerKind.SLIDING: own("attention.key_length_swa", MOST_WIDTH),
    }
    end = whole("tokenizer.ggml.eos_token_id", vocab_size - 1, 1, least=0)
    ends = {end: None, whole("tokenizer.ggml.eot_token_id", vocab_size - 1, end, least=0): None}
    num_sliding = head_dim[LayerKind.SLIDING]
    if file.get(f"{ARCHITECTURE}.rope.dimension_count_swa", int, num_sliding) != num_sliding:
        raise CheckpointError(f"{file.path}: sliding layers that rotate in part cannot be run; choose another model")
    try:
        return ModelConfig(
            vocab_size=vocab_size,
            hidden_size=own("embedding_length", MOST_WIDTH),
            intermediate_size=own("feed_forward_length", MOST_WIDTH),
            moe_intermediate_size=own("expert_feed_forward_length", MOST_WIDTH),
            num_experts=own("expert_count", MOST_COUNT),
            top_k_experts=own("expert_used_count", MOST_COUNT),
            layer_kinds=kinds,
            num_attention_heads=own("attention.head_count", MOST_COUNT),
            num_kv_heads=_num_kv_heads(file, kinds),
            head_dim=head_dim,
            rope={
                LayerKind.FULL: RopeConfig(
                    theta=real("rope.freq_base", 1.0, MOST_THETA, 1e6),
                    rotated_share=_rotated_share(file, head_dim[LayerKind.FULL]),
                ),
                LayerKind.SLIDING: RopeConfig(
                    theta=real("rope.freq_base_swa", 1.0, MOST_THETA, 1e4), rotated_share=1.0
                ),
            },
            sliding_window=own("attention.sliding_window", MOST_POSITIONS),
            rms_norm_eps=real("attention.layer_norm_rms_epsilon", 0.0, 1.0),
            final_logit_softcapping=real("final_logit_softcapping", 0.0, 1e6),
            max_position_embeddings=own("context_length", MOST_POSITIONS),
            canvas_length=whole("diffusion.canvas_length", MOST_POSITIONS),
            pad_token_id=whole("tokenizer.ggml.padding_token_id", vocab_size - 1, 0, least=0),
            eos_token_ids=tuple(ends),
            bos_token_id=whole("tokenizer.ggml.bos_token_id", vocab_size - 1, 2, least=0),
        )
    except CheckpointError as error:
        # `ModelConfig` names `config.json`, which only a folder has.
        raise CheckpointError(str(error).replace("config.json", str(file.path))) from None


def sampler_values(file: GgufFile) -> dict[str, Any]:
    """Returns what a file says of its sampler, by the names of a `generation_config.json`; what it lacks is left out.

    Raises:
        CheckpointError: a value is of another kind.
    """
    values: dict[str, Any] = {
        name: file.get(f"diffusion.{key}", kind)
        for name, (key, kind) in _SAMPLER_KEYS.items()
        if f"diffusion.{key}" in file
    }
    bound = "diffusion.eb_entropy_bound"
    return values | ({"sampler_config": {"entropy_bound": file.get(bound, float)}} if bound in file else {})


def _layer_kinds(file: GgufFile, num_layers: int) -> tuple[LayerKind, ...]:
    key = f"{ARCHITECTURE}.attention.sliding_window_pattern"
    slides = file.booleans(key)
    if len(slides) != num_layers:
        raise CheckpointError(
            f"{file.path}: {key} has {len(slides)} entries for {num_layers} layers; get a complete conversion"
        )
    return tuple(LayerKind.SLIDING if one else LayerKind.FULL for one in slides)


def _num_kv_heads(file: GgufFile, kinds: tuple[LayerKind, ...]) -> dict[LayerKind, int]:
    key = f"{ARCHITECTURE}.attention.head_count_kv"
    counts = file.integers(key)
    of_kinds = {kind: {count for count, own in zip(counts, kinds, strict=False) if own is kind} for kind in LayerKind}
    if len(counts) != len(kinds) or any(len(of_kinds[kind]) > 1 for kind in LayerKind):
        raise CheckpointError(f"{file.path}: {key} must be one number for each kind of layer; get the file again")
    # A kind without layers needs a number too.
    return {
        kind: whole_number(file.path, key, next(iter(of_kinds[kind] or set(counts))), most=MOST_COUNT)
        for kind in LayerKind
    }


def _rotated_share(file: GgufFile, head_dim: int) -> float:
    """Returns the share of a full layer's head that rotates: a factor of 1, before all that do not rotate."""
    info = file.tensors.get(ROPE_FACTORS)
    if info is None:
        return 1.0
    if info.shape != (head_dim // 2,):
        raise CheckpointError(
            f"{file.path}: {ROPE_FACTORS} has shape {list(info.shape)}, {[head_dim // 2]} by its metadata; get it again"
        )
    factors = read_tensor(file, ROPE_FACTORS)
    num_rotated = int((factors == 1.0).sum())
    if not bool((factors[:num_rotated] == 1.0).all() and (factors[num_rotated:] >= _STILL).all()):
        raise CheckpointError(f"{file.path}: scaled rotary positions cannot be run; choose another model")
    return num_rotated / len(factors)
