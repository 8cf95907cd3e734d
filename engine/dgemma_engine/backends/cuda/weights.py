"""A layer's weights as modules hold them -> weights as fused operations read them, plain or quantised, without loss.

Kernels need groups of 64 columns, and both matrices of a mixture of experts in one format. Weights that are stored
otherwise are converted where that is exact (larger groups repeat their scale), else expanded to floats, with a warning
about the memory. Shape legend: E experts, O output features, I input features, G groups.
"""

from __future__ import annotations

import logging

import torch
from dgemma_kernels.tensors.formats import GROUP, Weight, WeightFormat
from torch import Tensor, nn

from dgemma_engine.model.layers import Experts
from dgemma_engine.quantization.quantized_linear import PackedExperts, PackedLinear
from dgemma_engine.quantization.quantized_tensor import Encoding, QuantisedTensor

logger = logging.getLogger(__name__)

_FORMATS = {Encoding.INT8: WeightFormat.INT8, Encoding.INT4: WeightFormat.INT4, Encoding.E2M1: WeightFormat.NVFP4}


def dense_weight(module: nn.Module, dtype: torch.dtype) -> Weight:
    """Returns the weight [O, I] of a projection.

    Args:
        module: `nn.Linear` or `PackedLinear`.
        dtype: of a weight that has to be expanded.
    """
    if isinstance(module, PackedLinear):
        return _kept(module.packed) or _expanded(module.packed, dtype)
    assert isinstance(module, nn.Linear)
    return plain(module.weight.detach())


def expert_weights(module: nn.Module, dtype: torch.dtype) -> tuple[Weight, Weight]:
    """Returns gate and up [E, 2I, D], gate first, and down [E, D, I], both in one format.

    Args:
        module: `Experts` or `PackedExperts`.
        dtype: of weights that have to be expanded.
    """
    if not isinstance(module, PackedExperts):
        assert isinstance(module, Experts)
        return plain(module.gate_up_proj.detach()), plain(module.down_proj.detach())
    gate_up, down = _kept(module.gate_up), _kept(module.down)
    if gate_up is None or down is None or gate_up.format is not down.format or not _suits_experts(gate_up, down):
        return _expanded(module.gate_up, dtype), _expanded(module.down, dtype)
    return gate_up, down


def plain(data: Tensor) -> Weight:
    """Returns floats as a weight."""
    return Weight(format=WeightFormat.PLAIN, data=data)


def _kept(packed: QuantisedTensor) -> Weight | None:
    """Returns a quantised weight in the kernels' layout, or None where its groups cannot be theirs."""
    rows = None if packed.row_scales is None else packed.row_scales.squeeze(-1)
    if packed.encoding is Encoding.FP8:
        if packed.group_size != packed.num_columns:
            return None
        scale = packed.scales.squeeze(-1).float()
        return Weight(format=WeightFormat.FP8, data=packed.codes, scale=scale if rows is None else scale * rows)
    weight_format = _FORMATS[packed.encoding]
    if packed.num_columns % GROUP:
        return None
    if weight_format is WeightFormat.NVFP4:
        factor = packed.scales.new_ones(1, dtype=torch.float32) if rows is None else rows
        return Weight(format=weight_format, data=packed.codes, scale=packed.scales, global_scale=factor)
    if packed.group_size % GROUP or rows is not None:
        return None
    num_groups = packed.num_columns // GROUP
    scale = packed.scales.repeat_interleave(packed.group_size // GROUP, dim=-1)[..., :num_groups].contiguous()
    return Weight(format=weight_format, data=packed.codes, scale=scale)


def _suits_experts(gate_up: Weight, down: Weight) -> bool:
    """Whether experts can pass their inner rows on in the format that `down` needs: 8-bit rows come in groups."""
    return gate_up.format is not WeightFormat.FP8 or not (gate_up.num_inputs % GROUP or down.num_inputs % GROUP)


def _expanded(packed: QuantisedTensor, dtype: torch.dtype) -> Weight:
    logger.warning(
        "a %s weight of %s columns in groups of %s is expanded to %s, since the kernels need groups of %s: quantise "
        "the bf16 checkpoint with dgemma-engine quantize to save that memory",
        packed.encoding.value, packed.num_columns, packed.group_size, dtype, GROUP,
    )  # fmt: skip
    return plain(packed.dequantise(dtype))
