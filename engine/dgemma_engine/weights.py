"""Safetensors files of a Hugging Face DiffusionGemma folder to parameters, and back.

Streams one tensor at a time straight into the model, so loading needs little more memory than the model itself. Knows
file names and keys; knows nothing of what the tensors compute. Vision weights, the encoder's copies of tied weights
and a tied `lm_head` are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dgemma_engine.config import LayerKind, ModelConfig
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model import DiffusionGemma
from dgemma_engine.ops import Ops

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DECODER = "model.decoder."
_ENCODER = "model.encoder.language_model."
_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where one parameter's rows come from: keys whose tensors are stacked along the first dimension."""

    parameter: str
    keys: tuple[str, ...]
    rows: tuple[int, ...]


def load_model(
    folder: Path,
    ops: Ops,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[int], None] = lambda _percent: None,
) -> DiffusionGemma:
    """Reads a model folder.

    Args:
        folder: holds `config.json` and `model.safetensors`, or shards with `model.safetensors.index.json`.
        ops: operations the model will call.
        device: where its weights go.
        dtype: what they are cast to.
        report: called with the percentage read so far.

    Returns:
        The model in inference mode, without gradients.

    Raises:
        CheckpointError: names the file or key that is missing, damaged, of a wrong type or in contradiction to
            `config.json`, and what to do.
    """
    config = ModelConfig.load(folder)
    with torch.device("meta"):
        model = DiffusionGemma(config, ops)
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(requires_grad=False)
    targets: dict[str, Tensor] = dict(model.state_dict())
    with ExitStack() as stack:
        files = _open_files(folder, stack)
        _refuse_foreign_keys(files, config)
        sources = list(_sources(config))
        for number, source in enumerate(sources):
            _fill(targets[source.parameter], source, files)
            report(100 * (number + 1) // len(sources))
    return model


def save_checkpoint(model: DiffusionGemma, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes `config.json` and `model.safetensors` as `transformers` lays them out.

    The weights go to a temporary file first: a full disk leaves the old checkpoint whole.

    Args:
        model: what to save.
        folder: made if missing.
        dtype: of the saved tensors.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    tensors: dict[str, Tensor] = {}
    for source in _sources(model.config):
        parts = state[source.parameter].detach().to("cpu", dtype).split(list(source.rows))
        tensors |= {key: part.contiguous().clone() for key, part in zip(source.keys, parts, strict=True)}
    unfinished = folder / f".{_SINGLE}.part"
    try:
        save_file(tensors, unfinished, metadata={"format": "pt"})
    except SafetensorError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{folder / _SINGLE} cannot be written: {error}") from error
    # safetensors writes a file that only its owner may read; a model folder is as public as the folder it lies in.
    unfinished.chmod(0o644)
    unfinished.replace(folder / _SINGLE)
    hf = model.config.to_hf() | {"dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(hf, indent=2) + "\n", encoding="utf-8")


def _sources(config: ModelConfig) -> Iterator[_Source]:
    """Yields every parameter with the keys of the file that hold it."""
    yield _plain("embed_tokens.weight", config.vocab_size)
    for i, kind in enumerate(config.layer_kinds):
        layer = f"layers.{i}."
        q_rows = config.num_attention_heads * config.head_dim[kind]
        kv_rows = config.num_kv_heads[kind] * config.head_dim[kind]
        names = ("q_proj", "k_proj", "v_proj") if kind is LayerKind.SLIDING else ("q_proj", "k_proj")
        yield _Source(
            parameter=f"{layer}self_attn.qkv_proj.weight",
            keys=tuple(f"{_DECODER}{layer}self_attn.{name}.weight" for name in names),
            rows=(q_rows, *[kv_rows] * (len(names) - 1)),
        )
        yield _plain(f"{layer}self_attn.o_proj.weight", config.hidden_size)
        for name in ("q_norm", "k_norm"):
            yield _plain(f"{layer}self_attn.{name}.weight", config.head_dim[kind])
        yield from _gated_mlp(f"{layer}mlp.", f"{layer}mlp.", config)
        yield _plain(f"{layer}router.proj.weight", config.num_experts)
        yield _plain(f"{layer}router.scale", config.hidden_size)
        yield _plain(f"{layer}router.per_expert_scale", config.num_experts)
        yield _plain(f"{layer}experts.gate_up_proj", config.num_experts)
        yield _plain(f"{layer}experts.down_proj", config.num_experts)
        for name in (
            "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
            "post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2",
        ):  # fmt: skip
            yield _plain(f"{layer}{name}.weight", config.hidden_size)
        yield _plain(f"{layer}layer_scalar", 1)
        encoder_key = f"{_ENCODER}{layer}layer_scalar"
        yield _Source(parameter=f"{layer}encoder_layer_scalar", keys=(encoder_key,), rows=(1,))
    yield _plain("norm.weight", config.hidden_size)
    yield _plain("self_conditioning.pre_norm.weight", config.hidden_size)
    yield from _gated_mlp("self_conditioning.mlp.", "self_conditioning.", config)


def _plain(name: str, rows: int) -> _Source:
    return _Source(parameter=name, keys=(_DECODER + name,), rows=(rows,))


def _gated_mlp(ours: str, theirs: str, config: ModelConfig) -> Iterator[_Source]:
    keys = tuple(f"{_DECODER}{theirs}{name}_proj.weight" for name in ("gate", "up"))
    yield _Source(parameter=f"{ours}gate_up_proj.weight", keys=keys, rows=(config.intermediate_size,) * 2)
    down_key = f"{_DECODER}{theirs}down_proj.weight"
    yield _Source(parameter=f"{ours}down_proj.weight", keys=(down_key,), rows=(config.hidden_size,))


def _open_files(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Returns the open file of every key."""
    index_path = folder / _INDEX
    if index_path.exists():
        try:
            weight_map: dict[str, str] = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{index_path}: cannot be read ({error}); download it again") from error
        opened = {name: _open_file(folder / name, stack) for name in sorted(set(weight_map.values()))}
        for key, name in weight_map.items():
            if key not in opened[name].keys():  # noqa: SIM118 - a safetensors handle, not a dict
                raise CheckpointError(f"{folder / name}: lacks {key}, which {_INDEX} promises; download both again")
        return {key: opened[name] for key, name in weight_map.items()}
    file = _open_file(folder / _SINGLE, stack)
    return dict.fromkeys(file.keys(), file)


def _open_file(path: Path, stack: ExitStack) -> Any:
    try:
        return stack.enter_context(safe_open(path, "pt"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; download the whole model folder again") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); download it again") from error


def _refuse_foreign_keys(files: dict[str, Any], config: ModelConfig) -> None:
    """Refuses decoder keys this loader would leave unread: the model would not be the checkpoint."""
    known = {key for source in _sources(config) for key in source.keys}
    foreign = sorted(key for key in files if key.startswith(_DECODER) and key not in known)
    if not foreign:
        return
    key = foreign[0]
    if key.rpartition(".")[2] in ("weight_scale", "weight_packed", "weight_global_scale", "weight_scale_2", "qweight"):
        raise CheckpointError(f"{key}: this checkpoint is quantised, which is not supported; use the bf16 checkpoint")
    raise CheckpointError(f"{key}: not part of the model that config.json describes; the two do not belong together")


def _fill(target: Tensor, source: _Source, files: dict[str, Any]) -> None:
    for key, part in zip(source.keys, target.split(list(source.rows)), strict=True):
        if key not in files:
            raise CheckpointError(f"{key}: missing from the weights; download the whole model folder again")
        view = files[key].get_slice(key)
        if view.get_dtype() not in _FLOATS:
            raise CheckpointError(f"{key}: stored as {view.get_dtype()}, only {', '.join(_FLOATS)} can be loaded")
        if list(view.get_shape()) != list(part.shape):
            raise CheckpointError(
                f"{key}: shape {list(view.get_shape())} in the weights, {list(part.shape)} by config.json; "
                "the two do not belong together"
            )
        part.copy_(files[key].get_tensor(key))
