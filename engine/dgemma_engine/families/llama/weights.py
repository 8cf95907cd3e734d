"""Tensors of a Llama checkpoint to a `LlamaModel`: a Hugging Face folder of safetensors, or one GGUF file.

Streams one tensor at a time straight into the model. A file that holds what the model would leave unread is refused: it
would not be the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.checkpoint.gguf_quantization import read_tensor
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.model.ops import Ops

_HEAD = "lm_head.weight"
# Parameters of a layer, and the Hugging Face tensors whose rows they hold.
_LAYER = {
    "input_layernorm": ("input_layernorm",),
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o_proj": ("self_attn.o_proj",),
    "post_attention_layernorm": ("post_attention_layernorm",),
    "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "down_proj": ("mlp.down_proj",),
}
_GGUF_NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
# Derived values that old checkpoints hold.
_UNREAD = ("rotary_emb.inv_freq",)


class _Tensors(Protocol):
    """The tensors of a checkpoint under their Hugging Face names."""

    config: LlamaConfig
    place: Path
    names: frozenset[str]

    def read(self, name: str, dtype: torch.dtype) -> Tensor: ...


def load_llama(
    path: Path,
    ops: Ops,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[int], None] = lambda _percent: None,
) -> LlamaModel:
    """Reads a model.

    Args:
        path: a Hugging Face folder with `config.json` and safetensors, or a GGUF file.
        ops: operations the model will call.
        device: where its weights go.
        dtype: what they are cast to.
        report: called with the percentage read so far.

    Returns:
        The model in inference mode, without gradients. A head that the checkpoint holds is used, whatever its
        configuration says of tied weights; without one the head is the embedding.

    Raises:
        CheckpointError: names the file, key or tensor that cannot be used, and what to do.
    """
    tensors: _Tensors = _Folder(path) if path.is_dir() else _Gguf(path)
    with torch.device("meta"):
        model = LlamaModel(tensors.config, ops, has_head=_HEAD in tensors.names)
    # Not `to_empty`, for which torch imports a third of a second of symbolic algebra.
    targets = {
        name: torch.empty(parameter.shape, dtype=dtype, device=device) for name, parameter in model.named_parameters()
    }
    model.load_state_dict(targets, assign=True)
    keys_of = {name: list(_keys(name)) for name in targets}
    unread = tensors.names - {key for keys in keys_of.values() for key in keys}
    if unread := sorted(name for name in unread if not name.endswith(_UNREAD)):
        raise CheckpointError(f"{tensors.place}: holds {unread[0]}, which a plain Llama has not; choose another model")
    for number, (parameter, target) in enumerate(targets.items()):
        _fill(target, tensors, keys_of[parameter])
        report(100 * (number + 1) // len(targets))
    return model.eval().requires_grad_(requires_grad=False)


def _keys(parameter: str) -> Iterable[str]:
    """Returns the Hugging Face names of the tensors that make one parameter."""
    name = parameter.removesuffix(".weight")
    prefix, _, last = name.rpartition(".")
    if prefix:
        return (f"model.{prefix}.{key}.weight" for key in _LAYER[last])
    return (parameter if parameter == _HEAD else f"model.{parameter}",)


def _fill(target: Tensor, tensors: _Tensors, keys: list[str]) -> None:
    start = 0
    for key in keys:
        if key not in tensors.names:
            raise CheckpointError(f"{tensors.place}: lacks {key}; get the whole model again")
        tensor = tensors.read(key, target.dtype)
        rows = target[start : start + len(tensor)]
        start += len(tensor)
        if rows.shape != tensor.shape or (key == keys[-1] and start != len(target)):
            shape = list(tensor.shape)
            raise CheckpointError(f"{tensors.place}: {key} has shape {shape}, against its configuration; get it again")
        rows.copy_(tensor)


class _Folder:
    def __init__(self, folder: Path) -> None:
        self.config, self.place = LlamaConfig.load(folder), folder
        self._reader = CheckpointReader(folder)
        self.names = frozenset(self._reader)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        return self._reader.tensor(name).to(dtype)


class _Gguf:
    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        self.config, self.place = LlamaConfig.from_gguf(self._file), path
        hf_names = {gguf: hf for hf, gguf in _GGUF_NAMES.items()}
        self._names = {_hf_name(name, hf_names): name for name in self._file.tensors}
        self.names = frozenset(self._names)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        tensor = read_tensor(self._file, self._names[name], dtype=dtype)
        for projection, num_heads in (
            ("q_proj", self.config.num_attention_heads),
            ("k_proj", self.config.num_key_value_heads),
        ):
            if name.endswith(f"{projection}.weight") and len(tensor) == num_heads * self.config.head_size:
                # The format stores rows for interleaved rotation: pairs lie side by side, here half a head apart.
                pairs = tensor.view(num_heads, self.config.head_size // 2, 2, -1)
                return pairs.transpose(1, 2).reshape(tensor.shape)
        return tensor


def _hf_name(name: str, hf_names: dict[str, str]) -> str:
    """Returns the Hugging Face name of a GGUF tensor; one that has none keeps its name."""
    prefix, _, last = name.removesuffix(".weight").rpartition(".")
    if last not in hf_names or not name.endswith(".weight"):
        return name
    if prefix:
        return f"model.layers.{prefix.removeprefix('blk.')}.{hf_names[last]}.weight"
    return _HEAD if last == "output" else f"model.{hf_names[last]}.weight"
