"""Tensors of a Llama or Qwen2 checkpoint to a `LlamaModel`: a Hugging Face folder of safetensors, or one GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.checkpoint.gguf_quantization import read_tensor
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.stored_tensors import FolderTensors, StoredTensors, read_parameters
from dgemma_engine.families.tensor_names import HUGGING_FACE
from dgemma_engine.model.ops import Ops

_GGUF_NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


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
    tensors: StoredTensors
    if path.is_dir():
        config, tensors = LlamaConfig.load(path), FolderTensors(path)
    else:
        tensors = _Gguf(path)
        config = tensors.config
    names = HUGGING_FACE
    with torch.device("meta"):
        model = LlamaModel(config, ops, has_head=names.head in tensors.names)
    read_parameters(model, tensors, names, kind="a plain Llama", device=device, dtype=dtype, report=report)
    return model


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
            is_interleaved = not self.config.has_qkv_bias and name.endswith(f"{projection}.weight")
            if is_interleaved and len(tensor) == num_heads * self.config.head_size:
                # Rows of a Llama are stored for interleaved rotation: pairs lie side by side, here half a head apart.
                pairs = tensor.view(num_heads, self.config.head_size // 2, 2, -1)
                return pairs.transpose(1, 2).reshape(tensor.shape)
        return tensor


def _hf_name(name: str, hf_names: dict[str, str]) -> str:
    """Returns the Hugging Face name of a GGUF tensor; one that has none keeps its name."""
    stem, _, kind = name.rpartition(".")
    prefix, _, last = stem.rpartition(".")
    if last not in hf_names or kind not in ("weight", "bias"):
        return name
    if prefix:
        return f"model.layers.{prefix.removeprefix('blk.')}.{hf_names[last]}.{kind}"
    return HUGGING_FACE.head if last == "output" else f"model.{hf_names[last]}.weight"
