"""Adapters of a Llama: which files there are for a base, and their low-rank factors, checked.

`causal.safetensors` teaches the causal mode to fill holes and is merged into the base; `canvas.safetensors` adds the
canvas mode and stays beside it. Each holds, for layer N and projection K, `layers.N.K.a` [R, I] and `layers.N.K.b`
[O, R]; the one of the canvas also `rows.ID` [D], the input embedding of its mask. A matrix of 8 bits comes with a scale
for each of its rows, `layers.N.K.a.scale` [R]. The metadata names the base, the stage and the tokens.

Shape legend: R rank, I inputs, O outputs of a projection, D hidden.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgemma_engine.config_values import MOST_TOKENS, whole_number
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.llama.config import LlamaConfig

Stage = Literal["causal", "canvas"]
STAGES: tuple[Stage, ...] = ("causal", "canvas")
FOLDER = "adapters"
_SHIPPED = Path(__file__).parents[2] / FOLDER
SCALE = ".scale"
_KEYS = ("q", "k", "v", "o", "g", "u", "d")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTokens:
    """Ids of the marks that an adapter was trained with.

    Attributes:
        end: ends a middle, and begins a prompt without a name.
        name: stands before the file's name at the beginning of the prompt.
        mask: holds a free position of the canvas; None in an adapter that has none.
    """

    end: int
    name: int
    mask: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One file.

    Attributes:
        path: of the file.
        stage: which mode it was trained for.
        base_sha256: of the file that it was trained on.
        rank: R.
        tokens: its marks.
    """

    path: Path
    stage: Stage
    base_sha256: str
    rank: int
    tokens: AdapterTokens

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the metadata of a file.

        Raises:
            CheckpointError: it is truncated, or is no adapter.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata: Mapping[str, str] = file.metadata() or {}
            marks: Any = json.loads(metadata["tokens"])
            stage, rank = metadata["stage"], int(metadata["rank"])
            mask = marks.get("mask")
            ids = {"end": marks["end"], "name": marks["name"]} | ({} if mask is None else {"mask": mask})
            base_sha256 = metadata["base_sha256"]
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); get the adapter again") from error
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: is no adapter, its metadata lacks {error}; remove the file") from error
        for mark, value in ids.items():
            whole_number(path, f"token {mark}", value, least=0, most=MOST_TOKENS)
        tokens = AdapterTokens(**ids)
        if stage not in STAGES or stage != path.stem:
            raise CheckpointError(f"{path}: holds the stage {stage!r}; name the file {stage}.safetensors")
        if stage == "canvas" and mask is None:
            raise CheckpointError(f"{path}: is no adapter, its metadata lacks 'mask'; remove the file")
        if rank < 1:
            raise CheckpointError(f"{path}: has rank {rank}; get the adapter again")
        return cls(path=path, stage=stage, base_sha256=base_sha256, rank=rank, tokens=tokens)

    def tensors(self, config: LlamaConfig) -> dict[str, Tensor]:
        """Returns its tensors, float32.

        Raises:
            CheckpointError: a mark is no token of the base, or a tensor is missing, has another shape than the base
                asks for, or holds no numbers.
        """
        try:
            with safe_open(self.path, "pt") as file:
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error}); get the adapter again") from error
        for mark in ("end", "name", "mask"):
            value = getattr(self.tokens, mark)
            if value is not None and value >= config.vocab_size:
                raise CheckpointError(
                    f"{self.path}: token {mark}={value} must be below the {config.vocab_size} tokens of the model; "
                    "get the adapter of this model"
                )
        tensors = dict[str, Tensor]()
        for name, shape in factor_shapes(config, self.rank, self.tokens).items():
            tensor, scale = stored.get(name), stored.get(f"{name}{SCALE}")
            if tensor is None or (tensor.dtype is torch.int8 and scale is None):
                raise CheckpointError(f"{self.path}: lacks {name}; get the adapter again")
            if tensor.shape != shape or (scale is not None and scale.shape != shape[:1]):
                found = list(tensor.shape)
                raise CheckpointError(
                    f"{self.path}: {name} has shape {found}, this base with rank {self.rank} asks for {list(shape)}; "
                    "get the adapter of this model"
                )
            tensors[name] = tensor.float() if scale is None else tensor.float() * scale.float()[:, None]
            if not torch.isfinite(tensors[name]).all():
                raise CheckpointError(f"{self.path}: {name} holds values that are no numbers; get the adapter again")
        return tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The adapters of one base; None where there is none."""

    causal: Adapter | None
    canvas: Adapter | None

    @classmethod
    def find(cls, base: Path) -> Self:
        """Finds the adapters in `adapters/` beside a base, which may be empty, else those that came with the package.

        Args:
            base: a GGUF file; a folder has no adapters.

        Raises:
            CheckpointError: a file is damaged, or was trained on another base.
        """
        if not base.is_file():
            return cls(causal=None, canvas=None)
        beside = base.parent / FOLDER
        if beside.is_dir():
            return cls(**{stage: _read_for(base, beside / f"{stage}.safetensors") for stage in STAGES})
        if not any(folder.is_dir() for folder in _SHIPPED.glob("*")):
            return cls(causal=None, canvas=None)
        shipped = _SHIPPED / fingerprint(base)
        return cls(**{stage: _read_for(base, shipped / f"{stage}.safetensors") for stage in STAGES})

    @property
    def tokens(self) -> AdapterTokens | None:
        """Marks of the canvas adapter, else of the causal one."""
        adapter = self.canvas or self.causal
        return None if adapter is None else adapter.tokens


def _read_for(base: Path, path: Path) -> Adapter | None:
    if not path.exists():
        return None
    adapter = Adapter.read(path)
    if adapter.base_sha256 != fingerprint(base):
        raise CheckpointError(f"{path}: is an adapter of another base than {base.name}; remove it or get that base")
    return adapter


def fingerprint(path: Path) -> str:
    """Returns the SHA-256 of a base, by which its adapters name it."""
    stat = path.stat()
    return _hash_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)
def _hash_of(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def factor_shapes(config: LlamaConfig, rank: int, tokens: AdapterTokens) -> dict[str, torch.Size]:
    """Returns the shape of each tensor of an adapter by its name."""
    size, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_size, config.num_key_value_heads * config.head_size
    pairs = ((size, q), (size, kv), (size, kv), (q, size), (size, inner), (size, inner), (inner, size))
    shapes: dict[str, torch.Size] = {}
    if tokens.mask is not None:
        shapes[f"rows.{tokens.mask}"] = torch.Size((size,))
    for key, (inputs, outputs) in zip(_KEYS, pairs, strict=True):
        for i in range(config.num_layers):
            shapes[f"layers.{i}.{key}.a"] = torch.Size((rank, inputs))
            shapes[f"layers.{i}.{key}.b"] = torch.Size((outputs, rank))
    return shapes
