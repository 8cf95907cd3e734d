"""The trainer's configuration: a TOML file to frozen objects; every mistake is an error that names its key."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, cast, get_args

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.errors import EngineError, TrainingError, WrongUsage
from dgemma_engine.model.config import LayerKind, ModelConfig, RopeConfig
from dgemma_engine.tools.corpus import bpe
from dgemma_engine.tools.corpus.middles import MiddleMix
from dgemma_engine.tools.training.data.examples import training_format
from dgemma_engine.tools.training.optimization.muon import MuonConfig
from dgemma_engine.tools.training.optimization.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """`[model]`: dimensions, named as in `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_experts: int
    top_k_experts: int
    layer_types: tuple[str, ...]
    num_attention_heads: int
    num_key_value_heads: int
    num_global_key_value_heads: int
    head_dim: int
    global_head_dim: int
    sliding_window: int
    canvas_length: int
    rope_theta: float = 10_000.0
    global_rope_theta: float = 1_000_000.0
    partial_rotary_factor: float = 0.25
    final_logit_softcapping: float = 30.0
    max_position_embeddings: int = 4_096

    def model_config(self) -> ModelConfig:
        """Returns what the model is built from.

        Raises:
            TrainingError: a dimension contradicts another; the message names it.
        """
        try:
            return ModelConfig(
                vocab_size=self.vocab_size,
                hidden_size=self.hidden_size,
                intermediate_size=self.intermediate_size,
                moe_intermediate_size=self.moe_intermediate_size,
                num_experts=self.num_experts,
                top_k_experts=self.top_k_experts,
                layer_kinds=tuple(LayerKind(kind) for kind in self.layer_types),
                num_attention_heads=self.num_attention_heads,
                num_kv_heads={
                    LayerKind.SLIDING: self.num_key_value_heads,
                    LayerKind.FULL: self.num_global_key_value_heads,
                },
                head_dim={LayerKind.SLIDING: self.head_dim, LayerKind.FULL: self.global_head_dim},
                rope={
                    LayerKind.SLIDING: RopeConfig(theta=self.rope_theta, rotated_share=1.0),
                    LayerKind.FULL: RopeConfig(theta=self.global_rope_theta, rotated_share=self.partial_rotary_factor),
                },
                sliding_window=self.sliding_window,
                rms_norm_eps=1e-6,
                final_logit_softcapping=self.final_logit_softcapping,
                max_position_embeddings=self.max_position_embeddings,
                canvas_length=self.canvas_length,
                pad_token_id=bpe.PAD,
                eos_token_ids=(bpe.EOS,),
                bos_token_id=bpe.BOS,
            )
        except (EngineError, ValueError, ZeroDivisionError) as error:
            raise TrainingError(f"model: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatTable:
    """`[format]`: see `InfillFormat`."""

    slot_sizes: tuple[int, ...]
    prefix_tokens: int
    suffix_tokens: int
    suffix_head_tokens: int

    def infill_format(self) -> InfillFormat:
        """Returns the format with the token ids of `bpe`.

        Raises:
            TrainingError: a value is out of range.
        """
        try:
            return training_format(
                slot_sizes=self.slot_sizes,
                prefix_tokens=self.prefix_tokens,
                suffix_tokens=self.suffix_tokens,
                suffix_head_tokens=self.suffix_head_tokens,
            )
        except EngineError as error:
            raise TrainingError(f"format: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """`[data]`: see `BatchPlan`.

    Attributes:
        batch_tokens: prompt and canvas tokens of a step.
        canvases_per_hole: noise draws that share one prompt pass.
        chunk_holes: holes that are drawn and grouped together.
        num_workers: processes that make batches; 0 makes them between the steps.
    """

    batch_tokens: int
    canvases_per_hole: int = 2
    chunk_holes: int = 512
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "canvases_per_hole", "chunk_holes"):
            if getattr(self, name) < 1:
                raise TrainingError(f"data.{name}={getattr(self, name)} must be at least 1")
        if self.num_workers < 0:
            raise TrainingError(f"data.num_workers={self.num_workers} must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTable:
    """`[loss]`.

    Attributes:
        causal_weight: of the next-token loss beside the slot loss; 0 leaves ranking and the prompt untaught.
        balance_weight: of the routing loss; 0 lets experts fall idle, large forces them to be alike.
        self_conditioned_share: share of the steps that judge their canvases twice.
    """

    causal_weight: float = 0.5
    balance_weight: float = 0.01
    self_conditioned_share: float = 0.5

    def __post_init__(self) -> None:
        if min(self.causal_weight, self.balance_weight) < 0:
            raise TrainingError("loss.causal_weight and loss.balance_weight must not be negative")
        if not 0 <= self.self_conditioned_share <= 1:
            raise TrainingError(f"loss.self_conditioned_share={self.self_conditioned_share} must be between 0 and 1")


Execution: TypeAlias = Literal["eager", "compiled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """`[run]`.

    Attributes:
        seed: of weights, data and noise.
        minutes: time to train for, unless the command line says otherwise.
        save_minutes: between checkpoints.
        evaluate_minutes: between evaluations on held-out holes.
        evaluation_batches: in each evaluation; few are quick, many are exact.
        log_steps: steps that one point of the curve averages.
        execution: `eager` starts at once; `compiled` takes a while (on a CPU also a C++ compiler) and then makes
            faster steps.
    """

    seed: int = 0
    minutes: float = 60.0
    save_minutes: float = 5.0
    evaluate_minutes: float = 5.0
    evaluation_batches: int = 8
    log_steps: int = 20
    execution: Execution = "eager"

    def __post_init__(self) -> None:
        if self.execution not in get_args(Execution):
            raise TrainingError(f"run.execution={self.execution!r} must be one of {', '.join(get_args(Execution))}")
        for name in ("minutes", "save_minutes", "evaluate_minutes"):
            if getattr(self, name) <= 0:
                raise TrainingError(f"run.{name}={getattr(self, name)} must be more than 0")
        for name in ("evaluation_batches", "log_steps"):
            if getattr(self, name) < 1:
                raise TrainingError(f"run.{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All tables of the file."""

    model: ModelTable
    format: FormatTable
    data: DataTable
    middles: MiddleMix
    optimizer: MuonConfig
    schedule: Schedule
    loss: LossTable
    run: RunTable

    def __post_init__(self) -> None:
        canvas = max(self.format.slot_sizes, default=0) + self.format.suffix_head_tokens
        if canvas > self.model.canvas_length:
            raise TrainingError(
                f"model.canvas_length={self.model.canvas_length} must be at least {canvas} for slot and suffix"
            )
        self.model.model_config()
        self.format.infill_format()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a TOML file.

        Raises:
            WrongUsage: the file does not exist.
            TrainingError: the file cannot be read; a key is missing, unknown, of the wrong type or out of range.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise WrongUsage(f"{path}: no such file; name a training configuration") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TrainingError(f"{path}: cannot be read ({error})") from error
        try:
            return cls.from_dict(values)
        except TrainingError as error:
            raise TrainingError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Checks the tables of a file; see `load`."""
        tables: dict[str, type[Any]] = {
            "model": ModelTable,
            "format": FormatTable,
            "data": DataTable,
            "middles": MiddleMix,
            "optimizer": MuonConfig,
            "schedule": Schedule,
            "loss": LossTable,
            "run": RunTable,
        }
        if unknown := sorted(values.keys() - tables.keys()):
            raise TrainingError(f"unknown tables: {', '.join(unknown)}; known are {', '.join(tables)}")
        return cls(**{name: _table(name, table, values.get(name, {})) for name, table in tables.items()})

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values; `from_dict` reads them."""
        return asdict(self)


def differing_keys(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the dotted keys at which two configurations differ, for tables that make a checkpoint what it is."""
    keys = ["run.seed"] if mine.get("run", {}).get("seed") != other.get("run", {}).get("seed") else []
    for table in ("model", "format", "data", "middles", "optimizer", "loss"):
        left, right = mine.get(table, {}), other.get(table, {})
        keys += [f"{table}.{key}" for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]
    return keys


_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float)}


def _table(name: str, table: type[Any], values: Any) -> Any:
    if not isinstance(values, dict):
        raise TrainingError(f"{name} must be a table")
    given = cast(dict[str, Any], values)
    known = {field.name: field for field in fields(table)}
    if unknown := sorted(given.keys() - known.keys()):
        raise TrainingError(f"{name}.{unknown[0]} is unknown; known are {', '.join(known)}")
    if missing := [key for key, field in known.items() if key not in given and field.default is MISSING]:
        raise TrainingError(f"{name}.{missing[0]} is missing")
    checked: dict[str, Any] = {key: _value(f"{name}.{key}", str(known[key].type), given[key]) for key in given}
    return table(**checked)


def _value(key: str, kind: str, value: Any) -> Any:
    """Returns `value` after checking it against the annotation of its field."""
    if kind.startswith("tuple["):
        item_kind = kind.removeprefix("tuple[").partition(",")[0]
        if not isinstance(value, list | tuple):
            raise TrainingError(f"{key} must be a list")
        return tuple(_value(key, item_kind, item) for item in cast(list[Any], value))
    expected = _KINDS.get(kind, (str,))
    if not isinstance(value, expected) or isinstance(value, bool):
        raise TrainingError(f"{key}={value!r} must be of type {kind}")
    return float(value) if kind == "float" else value
