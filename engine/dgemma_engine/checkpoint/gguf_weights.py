"""A DiffusionGemma GGUF file read parameter by parameter, expanded or in the blocks that it is stored in.

Refuses a file that lacks a tensor of the model, or holds one that the model would leave unread: it would not be the
checkpoint. Names follow llama.cpp's converter (conversion/diffusion_gemma.py).
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from dgemma_engine.checkpoint.gguf_config import ROPE_FACTORS
from dgemma_engine.checkpoint.gguf_file import GgufFile, TensorInfo
from dgemma_engine.checkpoint.gguf_quantization import read_blocks, read_into
from dgemma_engine.checkpoint.key_map import DECODER, ENCODER, ParameterSource, parameter_sources
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.quantization.block_layers import BlockMatrix, pack_stack, packed_bytes

_OF_MODEL = {
    "embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight",
    "self_conditioning.pre_norm.weight": "self_cond_pre_norm.weight",
    "self_conditioning.gate_proj.weight": "self_cond_gate.weight",
    "self_conditioning.up_proj.weight": "self_cond_up.weight",
    "self_conditioning.down_proj.weight": "self_cond_down.weight",
}  # fmt: skip
_OF_LAYER = {
    "input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight", "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight", "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight", "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight", "experts.down_proj": "ffn_down_exps.weight",
    "layer_scalar": "layer_output_scale.weight",
}  # fmt: skip
_OF_ENCODER = "enc_layer_output_scale.weight"
# What an earlier converter wrote.
_OLD_OF_ENCODER = "enc_layer_out_scale.weight"
_HEAD = "output.weight"


class GgufWeights:
    """The parameters of one file; a context manager. Implements `tensors.StoredWeights`.

    Args:
        file: mapped.
        config: of the model in it.

    Raises:
        CheckpointError: a tensor is missing, not known, or of a wrong shape.
    """

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        self._file = file
        self.sources = tuple(parameter_sources(config))
        self._names = {key: self._name_of(key) for source in self.sources for key in source.keys}
        self._refuse_foreign_tensors()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.release()

    def require_device(self, device_type: str) -> None:
        """Refuses a device that cannot multiply the file's weights as they are stored.

        Raises:
            CheckpointError: there is no kernel for them.
        """
        packed = [source for source in self.sources if self.can_stay_packed(source)]
        kinds = sorted({self._info(key).type.name for source in packed for key in source.keys})
        if device_type != "cpu" and kinds:
            raise CheckpointError(
                f"{self._file.path}: weights in {', '.join(kinds)} are multiplied on a processor only, no GPU kernel "
                "reads them: use --device cpu, or on a card a folder in NVFP4, FP8 or int4 of the same model"
            )

    def can_stay_packed(self, source: ParameterSource) -> bool:
        """See `StoredWeights.can_stay_packed`."""
        return bool(source.matrices) and all(self._info(key).type.is_quantised for key in source.keys)

    def packed_bytes(self, source: ParameterSource) -> int | None:
        """See `StoredWeights.packed_bytes`."""
        if not self.can_stay_packed(source):
            return None
        infos = [self._info(key) for key in source.keys]
        return sum(packed_bytes(info.type.name, torch.Size(info.shape).numel(), info.num_bytes) for info in infos)

    def packed(self, source: ParameterSource, shape: torch.Size) -> tuple[BlockMatrix, ...]:
        """Returns the matrices of a parameter that can stay packed: one for each expert, or one for each key."""
        made: list[BlockMatrix] = []
        for key, rows in zip(source.keys, source.rows, strict=True):
            info = self._require_shape(key, (rows, *shape[1:]))
            num_matrices, num_rows = rows if len(info.shape) == 3 else 1, info.shape[-2]

            def read(i: int, name: str = self._names[key], num_rows: int = num_rows) -> Tensor:
                return read_blocks(self._file, name, i * num_rows, (i + 1) * num_rows)

            made += pack_stack(info.type.name, num_matrices, read)
            self._file.release()
        return tuple(made)

    def fill(self, target: Tensor, source: ParameterSource) -> None:
        """See `StoredWeights.fill`."""
        for key, part in zip(source.keys, target.split(list(source.rows)), strict=True):
            self._require_shape(key, tuple(part.shape))
            read_into(self._file, self._names[key], part)

    def _info(self, key: str) -> TensorInfo:
        return self._file.tensors[self._names[key]]

    def _require_shape(self, key: str, expected: tuple[int, ...]) -> TensorInfo:
        info = self._info(key)
        if info.shape != expected:
            raise CheckpointError(
                f"{self._file.path}: {self._names[key]} has shape {list(info.shape)}, {list(expected)} by the file's "
                "metadata; get it again"
            )
        return info

    def _name_of(self, key: str) -> str:
        """Returns the name in the file of a tensor that a folder calls `key`."""
        if key.startswith(ENCODER):
            prefix, name = f"blk.{_layer_of(key)}.", _OF_ENCODER
            if prefix + _OLD_OF_ENCODER in self._file.tensors:
                name = _OLD_OF_ENCODER
        elif (own := key.removeprefix(DECODER)) in _OF_MODEL:
            prefix, name = "", _OF_MODEL[own]
        else:
            prefix, name = f"blk.{_layer_of(key)}.", _OF_LAYER[own.split(".", 2)[2]]
        if prefix + name not in self._file.tensors:
            raise CheckpointError(f"{self._file.path}: lacks {prefix}{name}; get a complete conversion of the model")
        return prefix + name

    def _refuse_foreign_tensors(self) -> None:
        foreign = sorted(self._file.tensors.keys() - {*self._names.values(), ROPE_FACTORS})
        if _HEAD in foreign:
            raise CheckpointError(
                f"{self._file.path}: holds {_HEAD}, an output matrix of its own, where this model's embedding is its "
                "output matrix; get a conversion of the original model"
            )
        if foreign:
            raise CheckpointError(
                f"{self._file.path}: holds {foreign[0]}, which is not part of the model that its metadata describes; "
                "choose another model"
            )


def _layer_of(key: str) -> str:
    found = re.search(r"\blayers\.(\d+)\.", key)
    assert found is not None, key
    return found[1]
