"""The text model's values of a Hugging Face DiffusionGemma `config.json`, checked.

Turns the JSON into a `ModelConfig` and back. Every unsupported value is an error that names its field: a model that
loads computes what the checkpoint defines. The vision part is not read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

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

MODEL_TYPE = "diffusion_gemma"
_FILE = "config.json"


class LayerKind(StrEnum):
    """The tokens that a layer attends to in causal mode: the last `sliding_window`, or all."""

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
        except (OSError, ValueError) as error:
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
        text = object_of(_FILE, "text_config", _required(hf, "text_config"))
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
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"config.json: layer_types: {error}") from None
        whole_number(_FILE, "number of layer_types", len(kinds), least=0, most=MOST_COUNT)
        if len(kinds) != text.get("num_hidden_layers", len(kinds)):
            raise CheckpointError(
                f"config.json: layer_types has {len(kinds)} entries, num_hidden_layers is {text['num_hidden_layers']}"
            )
        full = _full_layer_overrides(text, kinds)

        def whole(key: str, most: int) -> int:
            return whole_number(_FILE, key, _required(text, key), most=most)

        def of_full(key: str, most: int) -> int:
            return (
                whole_number(_FILE, f"{key} of full layers", full[key], most=most)
                if full.get(key)
                else whole(key, most)
            )

        def real(key: str, default: float, most: float) -> float:
            return real_number(_FILE, key, text.get(key, default), least=0.0, most=most)

        def token(key: str, value: Any) -> int:
            return whole_number(_FILE, key, value, least=0, most=vocab_size - 1)

        vocab_size = whole("vocab_size", MOST_TOKENS)
        positions = text.get("max_position_embeddings", 131_072)
        return cls(
            vocab_size=vocab_size,
            hidden_size=whole("hidden_size", MOST_WIDTH),
            intermediate_size=whole("intermediate_size", MOST_WIDTH),
            moe_intermediate_size=whole("moe_intermediate_size", MOST_WIDTH),
            num_experts=whole("num_experts", MOST_COUNT),
            top_k_experts=whole("top_k_experts", MOST_COUNT),
            layer_kinds=kinds,
            num_attention_heads=whole("num_attention_heads", MOST_COUNT),
            num_kv_heads={
                LayerKind.SLIDING: whole("num_key_value_heads", MOST_COUNT),
                LayerKind.FULL: of_full("num_key_value_heads", MOST_COUNT),
            },
            head_dim={
                LayerKind.SLIDING: whole("head_dim", MOST_WIDTH),
                LayerKind.FULL: of_full("head_dim", MOST_WIDTH),
            },
            rope={kind: _rope(text, kind) for kind in LayerKind},
            sliding_window=whole("sliding_window", MOST_POSITIONS),
            rms_norm_eps=real("rms_norm_eps", 1e-6, 1.0),
            final_logit_softcapping=real("final_logit_softcapping", 30.0, 1e6),
            max_position_embeddings=whole_number(_FILE, "max_position_embeddings", positions, most=MOST_POSITIONS),
            canvas_length=whole_number(_FILE, "canvas_length", hf.get("canvas_length", 256), most=MOST_POSITIONS),
            pad_token_id=token("pad_token_id", text.get("pad_token_id") or 0),
            eos_token_ids=token_ids(_FILE, "eos_token_id", text.get("eos_token_id", 1), vocab_size=vocab_size),
            bos_token_id=token("bos_token_id", text.get("bos_token_id", 2)),
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


def _full_layer_overrides(text: dict[str, Any], kinds: tuple[LayerKind, ...]) -> dict[str, Any]:
    """Returns what full layers have of their own, from either of the two spellings `transformers` writes."""
    if text.get("per_layer_config") is None:
        values: dict[str, Any] = {
            "head_dim": text.get("global_head_dim", 512),
            "num_key_value_heads": text.get("num_global_key_value_heads"),
        }
        return {key: value for key, value in values.items() if value is not None}
    per_layer = {
        key: object_of(_FILE, f"per_layer_config of layer {key}", value)
        for key, value in object_of(_FILE, "per_layer_config", text["per_layer_config"]).items()
    }
    overrides = [per_layer.get(str(i), {}) for i, kind in enumerate(kinds) if kind is LayerKind.FULL]
    strays = [i for i, kind in enumerate(kinds) if kind is LayerKind.SLIDING and per_layer.get(str(i))]
    if strays or any(item != overrides[0] for item in overrides):
        raise CheckpointError("config.json: per_layer_config must be the same for all full layers and empty for others")
    unknown = sorted({key for item in overrides for key in item} - {"head_dim", "num_key_value_heads"})
    if unknown:
        raise CheckpointError(f"config.json: per_layer_config sets {', '.join(unknown)}, which is not supported")
    return overrides[0] if overrides else {}


def _rope(text: dict[str, Any], kind: LayerKind) -> RopeConfig:
    parameters = object_of(_FILE, "rope_parameters", _required(text, "rope_parameters")).get(kind.value)
    if parameters is None:
        raise CheckpointError(f"config.json: rope_parameters lacks {kind.value}")
    parameters = object_of(_FILE, f"rope_parameters of {kind.value}", parameters)
    expected = "proportional" if kind is LayerKind.FULL else "default"
    if parameters.get("rope_type", "default") not in (expected, "default"):
        raise CheckpointError(
            f"config.json: rope_type={parameters['rope_type']!r} of {kind.value} is not supported; use {expected!r}"
        )
    share = real_number(
        _FILE, "partial_rotary_factor", parameters.get("partial_rotary_factor", 1.0), least=0.0, most=1.0
    )
    if parameters.get("rope_type", "default") == "default" and share != 1.0:
        raise CheckpointError(
            f"config.json: partial_rotary_factor={share} of {kind.value} needs rope_type 'proportional'"
        )
    theta = real_number(_FILE, "rope_theta", _required(parameters, "rope_theta"), least=1.0, most=MOST_THETA)
    return RopeConfig(theta=theta, rotated_share=share)
