"""What a Llama checkpoint says of itself, as a Hugging Face `config.json` or as GGUF metadata, checked.

Every field that the model cannot honour is an error that names it: a model that loads computes what the checkpoint
means. Implements `model.dimensions.ModelDimensions`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import LayerKind, RopeConfig

MODEL_TYPE = "llama"
_ARCHITECTURE = "LlamaForCausalLM"
# Positions of a canvas, given text at its end included.
_CANVAS_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """Dimensions of the model; every layer sees all of the prompt."""

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

    def __post_init__(self) -> None:
        for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_attention_heads",
            "num_key_value_heads", "head_size", "max_position_embeddings", "canvas_length",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise CheckpointError(f"{name}={getattr(self, name)} must be at least 1; get the model again")
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
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
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
        _require(hf, "model_type", MODEL_TYPE)
        # Block-diffusion models call themselves llama too; their classes come with the checkpoint.
        _require(hf, "architectures", [_ARCHITECTURE])
        _require(hf, "hidden_act", "silu")
        _require(hf, "attention_bias", expected=False)
        _require(hf, "mlp_bias", expected=False)
        rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
        if (rope_type := rope.get("rope_type", rope.get("type", "default"))) != "default":
            raise CheckpointError(f"config.json: rope_type={rope_type!r} is not supported; it must be 'default'")
        hidden_size, num_heads = _required(hf, "hidden_size"), _required(hf, "num_attention_heads")
        eos = hf.get("eos_token_id")
        return cls(
            vocab_size=_required(hf, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=_required(hf, "intermediate_size"),
            num_layers=_required(hf, "num_hidden_layers"),
            num_attention_heads=num_heads,
            num_key_value_heads=hf.get("num_key_value_heads") or num_heads,
            head_size=hf.get("head_dim") or hidden_size // max(1, num_heads),
            rope_theta=float(rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0),
            rms_norm_eps=hf.get("rms_norm_eps", 1e-6),
            max_position_embeddings=hf.get("max_position_embeddings", 2_048),
            bos_token_id=hf.get("bos_token_id") or 0,
            eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos or 0,),
        )

    @classmethod
    def from_gguf(cls, file: GgufFile) -> Self:
        """Reads the metadata of a file whose `general.architecture` is `llama`.

        Raises:
            CheckpointError: names the key that is missing or not supported.
        """
        if file.get("llama.expert_count", int, 0):
            raise CheckpointError(f"{file.path}: a mixture of experts cannot be run; choose a dense model")
        if "rope_freqs.weight" in file.tensors or file.get("llama.rope.scaling.type", str, "none") != "none":
            raise CheckpointError(f"{file.path}: scaled rotary positions cannot be run; choose another model")
        if "token_embd.weight" not in file.tensors:
            raise CheckpointError(f"{file.path}: lacks token_embd.weight; get a complete conversion of the model")
        hidden_size = file.get("llama.embedding_length", int)
        num_heads = file.get("llama.attention.head_count", int)
        head_size = file.get("llama.attention.key_length", int, hidden_size // max(1, num_heads))
        if file.get("llama.rope.dimension_count", int, head_size) != head_size:
            raise CheckpointError(f"{file.path}: heads that rotate in part cannot be run; choose another model")
        return cls(
            vocab_size=file.tensors["token_embd.weight"].shape[0],
            hidden_size=hidden_size,
            intermediate_size=file.get("llama.feed_forward_length", int),
            num_layers=file.get("llama.block_count", int),
            num_attention_heads=num_heads,
            num_key_value_heads=file.get("llama.attention.head_count_kv", int, num_heads),
            head_size=head_size,
            rope_theta=file.get("llama.rope.freq_base", float, 10_000.0),
            rms_norm_eps=file.get("llama.attention.layer_norm_rms_epsilon", float),
            max_position_embeddings=file.get("llama.context_length", int),
            bos_token_id=file.get("tokenizer.ggml.bos_token_id", int, 0),
            eos_token_ids=(file.get("tokenizer.ggml.eos_token_id", int, 0),),
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


def _required(hf: dict[str, Any], key: str) -> int:
    value = hf.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"config.json: {key} must be a whole number, not {value!r}; download it again")
    return value


def _require(hf: dict[str, Any], key: str, expected: object) -> None:
    if hf.get(key, expected) != expected:
        raise CheckpointError(f"config.json: {key}={hf[key]!r} is not supported; it must be {expected!r}")
