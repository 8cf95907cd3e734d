"""What a Llama or Qwen2 checkpoint says of itself, as a Hugging Face `config.json` or as GGUF metadata, checked.

Every field that the model cannot honour is an error that names it: a model that loads computes what the checkpoint
means. Implements `model.dimensions.ModelDimensions`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.config_values import (
    MOST_COUNT,
    MOST_POSITIONS,
    MOST_THETA,
    MOST_TOKENS,
    MOST_WIDTH,
    object_of,
    real_number,
    token_ids,
    whole_number,
)
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import LayerKind, RopeConfig

LLAMA, QWEN2 = "llama", "qwen2"
"""Types of models, by the names that `config.json` and GGUF files give them alike."""
ARCHITECTURES = {LLAMA: "LlamaForCausalLM", QWEN2: "Qwen2ForCausalLM"}
"""The class of each."""
_FILE = "config.json"
# Positions of a canvas, given text at its end included.
_CANVAS_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """Dimensions of the model; every layer sees all of the prompt.

    A Llama has neither a bias of queries, keys and values nor norms of queries and keys; decoders built like one may.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    rope_theta: float
    rms_norm_eps: float
    max_position_embeddings: int
    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    canvas_length: int = _CANVAS_LENGTH
    has_qkv_bias: bool = False
    has_qk_norm: bool = False

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(
                f"{self.num_attention_heads=} must be a multiple of {self.num_key_value_heads=}; get the model again"
            )
        if self.head_size % 2:
            raise CheckpointError(f"{self.head_size=} must be even; get the model again")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads `folder/config.json`.

        Raises:
            CheckpointError: the file is missing or damaged, or asks for what the model lacks.
        """
        path = folder / "config.json"
        try:
            hf: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); download it again") from error
        if not isinstance(hf, dict):
            raise CheckpointError(f"{path}: must hold a JSON object; download it again")
        return cls.from_hf(hf)

    @classmethod
    def from_hf(cls, hf: dict[str, Any]) -> Self:
        """Reads a Hugging Face configuration.

        Raises:
            CheckpointError: names the field that is missing or not supported.
        """
        is_qwen2 = hf.get("model_type", LLAMA) == QWEN2
        model_type = QWEN2 if is_qwen2 else LLAMA
        require_value(hf, "model_type", model_type)
        # Block-diffusion models call themselves llama too; their classes come with the checkpoint.
        require_value(hf, "architectures", [ARCHITECTURES[model_type]])
        if is_qwen2:
            require_value(hf, "use_sliding_window", expected=False)
        return cls(**cls.dimensions(hf), has_qkv_bias=is_qwen2)

    @classmethod
    def dimensions(cls, hf: Mapping[str, Any]) -> dict[str, Any]:
        """Reads the fields that decoders built like a Llama share, by the names that a Llama's configuration has.

        Raises:
            CheckpointError: names the field that is missing or not supported.
        """
        require_value(hf, "hidden_act", "silu")
        require_value(hf, "attention_bias", expected=False)
        require_value(hf, "mlp_bias", expected=False)
        key = "rope_parameters" if hf.get("rope_parameters") else "rope_scaling"
        rope = object_of(_FILE, key, hf.get(key) or {})
        if (rope_type := rope.get("rope_type", rope.get("type", "default"))) != "default":
            raise CheckpointError(f"config.json: rope_type={rope_type!r} is not supported; it must be 'default'")

        def whole(key: str, most: int, default: int | None = None, *, least: int = 1) -> int:
            return whole_number(_FILE, key, hf.get(key, default), least=least, most=most)

        def or_null(key: str, most: int, default: int) -> int:
            return default if hf.get(key) is None else whole(key, most)

        vocab_size, hidden_size = whole("vocab_size", MOST_TOKENS), whole("hidden_size", MOST_WIDTH)
        num_heads = whole("num_attention_heads", min(MOST_COUNT, hidden_size))
        theta = rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0
        bos_id = hf.get("bos_token_id") or 0
        return {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": whole("intermediate_size", MOST_WIDTH),
            "num_layers": whole("num_hidden_layers", MOST_COUNT),
            "num_attention_heads": num_heads,
            "num_key_value_heads": or_null("num_key_value_heads", num_heads, num_heads),
            "head_size": or_null("head_dim", MOST_WIDTH, hidden_size // num_heads),
            "rope_theta": real_number(_FILE, "rope_theta", theta, least=1.0, most=MOST_THETA),
            "rms_norm_eps": real_number(_FILE, "rms_norm_eps", hf.get("rms_norm_eps", 1e-6), least=0.0, most=1.0),
            "max_position_embeddings": whole("max_position_embeddings", MOST_POSITIONS, 2_048),
            "bos_token_id": whole_number(_FILE, "bos_token_id", bos_id, least=0, most=vocab_size - 1),
            "eos_token_ids": token_ids(_FILE, "eos_token_id", hf.get("eos_token_id") or 0, vocab_size=vocab_size),
        }

    @classmethod
    def from_gguf(cls, file: GgufFile) -> Self:
        """Reads the metadata of a file whose `general.architecture` is `llama` or `qwen2`.

        Raises:
            CheckpointError: names the key that is missing or not supported.
        """
        kind = file.get("general.architecture", str)
        if kind not in ARCHITECTURES:
            raise CheckpointError(f"{file.path}: is a {kind!r} model, not one of {', '.join(ARCHITECTURES)}")
        if file.get(f"{kind}.expert_count", int, 0):
            raise CheckpointError(f"{file.path}: a mixture of experts cannot be run; choose a dense model")
        if "rope_freqs.weight" in file.tensors or file.get(f"{kind}.rope.scaling.type", str, "none") != "none":
            raise CheckpointError(f"{file.path}: scaled rotary positions cannot be run; choose another model")
        if "token_embd.weight" not in file.tensors:
            raise CheckpointError(f"{file.path}: lacks token_embd.weight; get a complete conversion of the model")

        def whole(key: str, most: int, default: int | None = None, *, least: int = 1) -> int:
            return whole_number(file.path, key, file.get(key, int, default), least=least, most=most)

        def real(key: str, least: float, most: float, default: float | None = None) -> float:
            return real_number(file.path, key, file.get(key, float, default), least=least, most=most)

        vocab_size = whole_number(
            file.path, "rows of token_embd.weight", file.tensors["token_embd.weight"].shape[0], most=MOST_TOKENS
        )
        hidden_size = whole(f"{kind}.embedding_length", MOST_WIDTH)
        num_heads = whole(f"{kind}.attention.head_count", min(MOST_COUNT, hidden_size))
        head_size = whole(f"{kind}.attention.key_length", MOST_WIDTH, hidden_size // num_heads)
        if file.get(f"{kind}.rope.dimension_count", int, head_size) != head_size:
            raise CheckpointError(f"{file.path}: heads that rotate in part cannot be run; choose another model")
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=whole(f"{kind}.feed_forward_length", MOST_WIDTH),
            # Each layer has tensors of its own.
            num_layers=whole(f"{kind}.block_count", min(MOST_COUNT, len(file.tensors))),
            num_attention_heads=num_heads,
            num_key_value_heads=whole(f"{kind}.attention.head_count_kv", num_heads, num_heads),
            head_size=head_size,
            rope_theta=real(f"{kind}.rope.freq_base", 1.0, MOST_THETA, 10_000.0),
            rms_norm_eps=real(f"{kind}.attention.layer_norm_rms_epsilon", 0.0, 1.0),
            max_position_embeddings=whole(f"{kind}.context_length", MOST_POSITIONS),
            bos_token_id=whole("tokenizer.ggml.bos_token_id", vocab_size - 1, 0, least=0),
            eos_token_ids=(whole("tokenizer.ggml.eos_token_id", vocab_size - 1, 0, least=0),),
            has_qkv_bias=kind == QWEN2,
        )

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """One for each layer: all see everything."""
        return (LayerKind.FULL,) * self.num_layers

    @property
    def num_kv_heads(self) -> dict[LayerKind, int]:
        """Key-value heads of the one layer kind."""
        return {LayerKind.FULL: self.num_key_value_heads}

    @property
    def head_dim(self) -> dict[LayerKind, int]:
        """Size of a head of the one layer kind."""
        return {LayerKind.FULL: self.head_size}

    @property
    def rope(self) -> dict[LayerKind, RopeConfig]:
        """Rotary embedding of the one layer kind."""
        return {LayerKind.FULL: RopeConfig(theta=self.rope_theta, rotated_share=1.0)}

    @property
    def final_logit_softcapping(self) -> None:
        """Logits have no bound."""

    @property
    def sliding_window(self) -> int:
        """A window that holds every position: masks are made for two kinds of layers, and this model has one."""
        return self.max_position_embeddings


def require_value(hf: Mapping[str, Any], key: str, expected: object) -> None:
    """Checks a field of a configuration that must have one value where it is given.

    Raises:
        CheckpointError: it has another; the message names both.
    """
    if hf.get(key, expected) != expected:
        raise CheckpointError(f"config.json: {key}={hf[key]!r} is not supported; it must be {expected!r}")
