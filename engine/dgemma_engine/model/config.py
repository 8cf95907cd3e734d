"""What a Hugging Face DiffusionGemma `config.json` says of the text model, checked.

Turns the JSON into a `ModelConfig` and back. Every field the model cannot honour is an error that names it: a model
that loads computes what the checkpoint means. The vision part is not read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from dgemma_engine.errors import CheckpointError

MODEL_TYPE = "diffusion_gemma"


class LayerKind(StrEnum):
    """What a layer's causal mode sees: the last `sliding_window` tokens, or all."""

    SLIDING = "sliding_attention"
    FULL = "full_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary embedding of one layer kind.

    Attributes:
        theta: base period.
        rotated_share: share of the head's dimensions that rotate, 0 to 1 (`partial_rotary_factor` of the
            "proportional" kind); frequencies are still spaced over the whole head.
    """

    theta: float
    rotated_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Dimensions of the text model; names follow the Hugging Face configuration where it has one."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_experts: int
    top_k_experts: int
    layer_kinds: tuple[LayerKind, ...]
    num_attention_heads: int
    num_kv_heads: dict[LayerKind, int]
    head_dim: dict[LayerKind, int]
    rope: dict[LayerKind, RopeConfig]
    sliding_window: int
    rms_norm_eps: float
    final_logit_softcapping: float
    max_position_embeddings: int
    canvas_length: int
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int

    def __post_init__(self) -> None:
        for name in (
            "vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_experts", "top_k_experts",
            "num_attention_heads", "sliding_window", "canvas_length", "max_position_embeddings",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise CheckpointError(f"config.json: {name}={getattr(self, name)} must be at least 1")
        if not self.layer_kinds:
            raise CheckpointError("config.json: layer_types is empty")
        if self.top_k_experts > self.num_experts:
            raise CheckpointError(f"config.json: {self.top_k_experts=} must not exceed {self.num_experts=}")
        for kind in LayerKind:
            if self.num_attention_heads % self.num_kv_heads[kind]:
                raise CheckpointError(
                    f"config.json: {self.num_attention_heads=} must be a multiple of the "
                    f"{self.num_kv_heads[kind]} key-value heads of {kind.value} layers"
                )
            if self.head_dim[kind] % 2:
                raise CheckpointError(f"config.json: head size {self.head_dim[kind]} of {kind.value} must be even")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads `folder/config.json`.

        Raises:
            CheckpointError: the file is missing, not JSON, of another `model_type`, or asks for what the model lacks.
        """
        path = folder / "config.json"
        try:
            hf: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{folder}: no config.json here; give a Hugging Face DiffusionGemma folder") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); download it again") from error
        if not isinstance(hf, dict):
            raise CheckpointError(f"{path}: must hold a JSON object; download it again")
        return cls.from_hf(hf)

    @classmethod
    def from_hf(cls, hf: dict[str, Any]) -> Self:
        """Reads a Hugging Face configuration.

        Raises:
            CheckpointError: names the field that is missing, contradictory or not supported.
        """
        if hf.get("model_type") != MODEL_TYPE:
            raise CheckpointError(
                f"config.json: model_type is {hf.get('model_type')!r}, only {MODEL_TYPE!r} can be loaded"
            )
        text = _required(hf, "text_config")
        _require(text, "hidden_activation", "gelu_pytorch_tanh")
        _require(text, "attention_bias", expected=False)
        _require(text, "tie_word_embeddings", expected=True)
        _require(hf, "tie_word_embeddings", expected=True)
        if text.get("use_bidirectional_attention") == "all":
            raise CheckpointError(
                "config.json: use_bidirectional_attention='all' is not supported; use 'vision' or null"
            )
        try:
            kinds = tuple(LayerKind(name) for name in _required(text, "layer_types"))
        except ValueError as error:
            raise CheckpointError(f"config.json: layer_types: {error}") from None
        if len(kinds) != text.get("num_hidden_layers", len(kinds)):
            raise CheckpointError(
                f"config.json: layer_types has {len(kinds)} entries, num_hidden_layers is {text['num_hidden_layers']}"
            )
        full = _full_layer_overrides(text, kinds)
        eos = text.get("eos_token_id", 1)
        return cls(
            vocab_size=_required(text, "vocab_size"),
            hidden_size=_required(text, "hidden_size"),
            intermediate_size=_required(text, "intermediate_size"),
            moe_intermediate_size=_required(text, "moe_intermediate_size"),
            num_experts=_required(text, "num_experts"),
            top_k_experts=_required(text, "top_k_experts"),
            layer_kinds=kinds,
            num_attention_heads=_required(text, "num_attention_heads"),
            num_kv_heads={
                LayerKind.SLIDING: _required(text, "num_key_value_heads"),
                LayerKind.FULL: full.get("num_key_value_heads") or _required(text, "num_key_value_heads"),
            },
            head_dim={
                LayerKind.SLIDING: _required(text, "head_dim"),
                LayerKind.FULL: full.get("head_dim") or _required(text, "head_dim"),
            },
            rope={kind: _rope(text, kind) for kind in LayerKind},
            sliding_window=_required(text, "sliding_window"),
            rms_norm_eps=text.get("rms_norm_eps", 1e-6),
            final_logit_softcapping=text.get("final_logit_softcapping", 30.0),
            max_position_embeddings=text.get("max_position_embeddings", 131_072),
            canvas_length=hf.get("canvas_length", 256),
            pad_token_id=text.get("pad_token_id") or 0,
            eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
            bos_token_id=text.get("bos_token_id", 2),
        )

    def to_hf(self) -> dict[str, Any]:
        """Returns a configuration that `transformers` reads; the vision part is the smallest that it accepts."""
        return {
            "architectures": ["DiffusionGemmaForBlockDiffusion"],
            "model_type": MODEL_TYPE,
            "canvas_length": self.canvas_length,
            "tie_word_embeddings": True,
            "text_config": {
                "model_type": "diffusion_gemma_text",
                "vocab_size": self.vocab_size,
                "hidden_size": self.hidden_size,
                "intermediate_size": self.intermediate_size,
                "moe_intermediate_size": self.moe_intermediate_size,
                "num_experts": self.num_experts,
                "top_k_experts": self.top_k_experts,
                "num_hidden_layers": len(self.layer_kinds),
                "layer_types": [kind.value for kind in self.layer_kinds],
                "num_attention_heads": self.num_attention_heads,
                "num_key_value_heads": self.num_kv_heads[LayerKind.SLIDING],
                "num_global_key_value_heads": self.num_kv_heads[LayerKind.FULL],
                "head_dim": self.head_dim[LayerKind.SLIDING],
                "global_head_dim": self.head_dim[LayerKind.FULL],
                "rope_parameters": {
                    LayerKind.SLIDING.value: {"rope_type": "default", "rope_theta": self.rope[LayerKind.SLIDING].theta},
                    LayerKind.FULL.value: {
                        "rope_type": "proportional",
                        "rope_theta": self.rope[LayerKind.FULL].theta,
                        "partial_rotary_factor": self.rope[LayerKind.FULL].rotated_share,
                    },
                },
                "sliding_window": self.sliding_window,
                "rms_norm_eps": self.rms_norm_eps,
                "final_logit_softcapping": self.final_logit_softcapping,
                "max_position_embeddings": self.max_position_embeddings,
                "hidden_activation": "gelu_pytorch_tanh",
                "attention_bias": False,
                "tie_word_embeddings": True,
                "pad_token_id": self.pad_token_id,
                "eos_token_id": list(self.eos_token_ids),
                "bos_token_id": self.bos_token_id,
            },
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "head_dim": 16,
                "patch_size": 2,
                "position_embedding_size": 4,
            },
        }


def _required(values: dict[str, Any], key: str) -> Any:
    if values.get(key) is None:
        raise CheckpointError(f"config.json: {key} is missing; give a Hugging Face DiffusionGemma folder")
    return values[key]


def _require(values: dict[str, Any], key: str, expected: object) -> None:
    if values.get(key, expected) != expected:
        raise CheckpointError(f"config.json: {key}={values[key]!r} is not supported; it must be {expected!r}")


def _full_layer_overrides(text: dict[str, Any], kinds: tuple[LayerKind, ...]) -> dict[str, int]:
    """Returns what full layers have of their own, from either of the two spellings `transformers` writes."""
    per_layer: dict[str, dict[str, int]] | None = text.get("per_layer_config")
    if per_layer is None:
        values: dict[str, int | None] = {
            "head_dim": text.get("global_head_dim", 512),
            "num_key_value_heads": text.get("num_global_key_value_heads"),
        }
        return {key: value for key, value in values.items() if value is not None}
    overrides = [per_layer.get(str(i), {}) for i, kind in enumerate(kinds) if kind is LayerKind.FULL]
    strays = [i for i, kind in enumerate(kinds) if kind is LayerKind.SLIDING and per_layer.get(str(i))]
    if strays or any(item != overrides[0] for item in overrides):
        raise CheckpointError("config.json: per_layer_config must be the same for all full layers and empty for others")
    unknown = sorted({key for item in overrides for key in item} - {"head_dim", "num_key_value_heads"})
    if unknown:
        raise CheckpointError(f"config.json: per_layer_config sets {', '.join(unknown)}, which is not supported")
    return overrides[0] if overrides else {}


def _rope(text: dict[str, Any], kind: LayerKind) -> RopeConfig:
    parameters = _required(text, "rope_parameters").get(kind.value)
    if parameters is None:
        raise CheckpointError(f"config.json: rope_parameters lacks {kind.value}")
    expected = "proportional" if kind is LayerKind.FULL else "default"
    if parameters.get("rope_type", "default") not in (expected, "default"):
        raise CheckpointError(
            f"config.json: rope_type={parameters['rope_type']!r} of {kind.value} is not supported; use {expected!r}"
        )
    share = parameters.get("partial_rotary_factor", 1.0)
    if parameters.get("rope_type", "default") == "default" and share != 1.0:
        raise CheckpointError(
            f"config.json: partial_rotary_factor={share} of {kind.value} needs rope_type 'proportional'"
        )
    return RopeConfig(theta=float(parameters["rope_theta"]), rotated_share=float(share))
