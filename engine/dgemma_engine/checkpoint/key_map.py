"""Which keys of a checkpoint hold which parameter of the model, and which of them are matrices that may be quantised.

Projections that read the same input are one parameter here and several keys there; experts are one stacked key in a
plain checkpoint and a key for each expert and projection in a quantised one. Knows names and row counts, no tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from dgemma_engine.model.config import LayerKind, ModelConfig

DECODER = "model.decoder."
ENCODER = "model.encoder.language_model."


class TensorKind(StrEnum):
    """What a parameter is for."""

    EMBEDDING = "embedding"
    ATTENTION = "attention"
    DENSE_MLP = "dense mlp"
    ROUTER = "router"
    EXPERTS = "experts"
    NORM = "norms and scalars"
    SELF_CONDITIONING = "self-conditioning"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSource:
    """Where one parameter comes from.

    Attributes:
        parameter: its name in our model's state.
        kind: what it is for.
        keys: of a plain checkpoint; their tensors are stacked along the first dimension.
        rows: first dimension of each key's tensor.
        matrices: key of each matrix in a quantised checkpoint, without what comes after its module's name. Together,
            one below the other, they are the parameter's rows; empty for what no checkpoint quantises.
        matrix_rows: rows of each matrix.
    """

    parameter: str
    kind: TensorKind
    keys: tuple[str, ...]
    rows: tuple[int, ...]
    matrices: tuple[str, ...] = ()
    matrix_rows: tuple[int, ...] = ()


def parameter_sources(config: ModelConfig) -> Iterator[ParameterSource]:
    """Yields every parameter of the model once."""
    yield _plain("embed_tokens.weight", TensorKind.EMBEDDING, config.vocab_size)
    for i, kind in enumerate(config.layer_kinds):
        layer = f"layers.{i}."
        q_rows = config.num_attention_heads * config.head_dim[kind]
        kv_rows = config.num_kv_heads[kind] * config.head_dim[kind]
        names = ("q_proj", "k_proj", "v_proj") if kind is LayerKind.SLIDING else ("q_proj", "k_proj")
        rows = (q_rows, *[kv_rows] * (len(names) - 1))
        keys = tuple(f"{layer}self_attn.{name}" for name in names)
        yield _matrices(f"{layer}self_attn.qkv_proj", TensorKind.ATTENTION, keys, rows)
        out = f"{layer}self_attn.o_proj"
        yield _matrices(out, TensorKind.ATTENTION, (out,), (config.hidden_size,))
        for name in ("q_norm", "k_norm"):
            yield _plain(f"{layer}self_attn.{name}.weight", TensorKind.NORM, config.head_dim[kind])
        yield from _gated_mlp(f"{layer}mlp.", f"{layer}mlp.", TensorKind.DENSE_MLP, config)
        yield _plain(f"{layer}router.proj.weight", TensorKind.ROUTER, config.num_experts)
        yield _plain(f"{layer}router.scale", TensorKind.ROUTER, config.hidden_size)
        yield _plain(f"{layer}router.per_expert_scale", TensorKind.ROUTER, config.num_experts)
        yield _experts(f"{layer}experts.", "gate_up_proj", ("gate_proj", "up_proj"), config)
        yield _experts(f"{layer}experts.", "down_proj", ("down_proj",), config)
        for name in (
            "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
            "post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2",
        ):  # fmt: skip
            yield _plain(f"{layer}{name}.weight", TensorKind.NORM, config.hidden_size)
        yield _plain(f"{layer}layer_scalar", TensorKind.NORM, 1)
        encoder_key = f"{ENCODER}{layer}layer_scalar"
        yield ParameterSource(
            parameter=f"{layer}encoder_layer_scalar", kind=TensorKind.NORM, keys=(encoder_key,), rows=(1,)
        )
    yield _plain("norm.weight", TensorKind.NORM, config.hidden_size)
    yield _plain("self_conditioning.pre_norm.weight", TensorKind.SELF_CONDITIONING, config.hidden_size)
    yield from _gated_mlp("self_conditioning.mlp.", "self_conditioning.", TensorKind.SELF_CONDITIONING, config)


def _plain(name: str, kind: TensorKind, rows: int) -> ParameterSource:
    return ParameterSource(parameter=name, kind=kind, keys=(DECODER + name,), rows=(rows,))


def _matrices(ours: str, kind: TensorKind, theirs: tuple[str, ...], rows: tuple[int, ...]) -> ParameterSource:
    return ParameterSource(
        parameter=f"{ours}.weight",
        kind=kind,
        keys=tuple(f"{DECODER}{name}.weight" for name in theirs),
        rows=rows,
        matrices=tuple(DECODER + name for name in theirs),
        matrix_rows=rows,
    )


def _gated_mlp(ours: str, theirs: str, kind: TensorKind, config: ModelConfig) -> Iterator[ParameterSource]:
    names = tuple(f"{theirs}{name}_proj" for name in ("gate", "up"))
    yield _matrices(f"{ours}gate_up_proj", kind, names, (config.intermediate_size,) * 2)
    yield _matrices(f"{ours}down_proj", kind, (f"{theirs}down_proj",), (config.hidden_size,))


def _experts(ours: str, name: str, projections: tuple[str, ...], config: ModelConfig) -> ParameterSource:
    num = config.num_experts
    rows = config.hidden_size if name == "down_proj" else config.moe_intermediate_size
    return ParameterSource(
        parameter=ours + name,
        kind=TensorKind.EXPERTS,
        keys=(f"{DECODER}{ours}{name}",),
        rows=(num,),
        matrices=tuple(f"{DECODER}{ours}{i}.{projection}" for i in range(num) for projection in projections),
        matrix_rows=(rows,) * (num * len(projections)),
    )
