"""Weights in 4 bits for products with few rows on a processor: codes and scales, packed, multiplied and expanded.

A weight is `least + step * code` with a step and a least value for each group of inputs. TorchScript can compile the
product.

Shape legend: N rows, I input width, O output width, G groups of inputs, g inputs of a group, T tiles of outputs, r
bytes of an input in a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Inputs that share a scale.
GROUP = 32
# Values of packed codes expanded at once: 4 million take 2.0 ms of an EPYC core, 3.2 ms in pieces of 2**17.
_EXPANDED_VALUES = 2**19
# Outputs that torch's kernels for 512 and 256 bits pack together.
_TILE_ROWS = (64, 32)


def packed_four_bits(codes_OI: Tensor, step_OG: Tensor, least_OG: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what `four_bit_product` reads of a weight `least + step * code`, with scales rounded to bfloat16.

    Args:
        codes_OI: int32, 0 to 15.
        step_OG: float32, of each `GROUP` inputs.
        least_OG: likewise.

    Raises:
        AttributeError: this torch has no such product.
        RuntimeError: it has none for this shape.
    """
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI, 1)
    # The product reads code c as (c - 8) * step + middle.
    scales = torch.stack((step_OG, least_OG + 8 * step_OG), -1).transpose(0, 1).contiguous().to(torch.bfloat16)
    return packed, scales


def four_bit_product(x_NI: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """Returns the product with weights of 4 bits, [N, O] in `x`'s dtype.

    Args:
        x_NI: bfloat16, contiguous.
        codes: see `packed_four_bits`.
        scales: likewise.
    """
    # 32 is `GROUP`, which TorchScript cannot read.
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x_NI, codes, 32, scales)


def four_bit_tile(codes_OI: Tensor, packed: Tensor) -> int:
    """Returns how many outputs lie in a tile of packed codes; 0 where this torch lays them out in another way.

    Args:
        codes_OI: what was packed.
        packed: see `packed_four_bits`.
    """
    num_outputs, num_inputs = codes_OI.shape
    for rows in _TILE_ROWS:
        if num_outputs % rows == 0:
            first_IR = _tile_codes(packed.view(-1, num_inputs, rows // 2)[0])
            if torch.equal(first_IR, codes_OI[:rows].t().to(torch.uint8)):
                return rows
    return 0


def expanded_four_bits(packed: Tensor, scales: Tensor, tile_rows: int, dtype: torch.dtype) -> Tensor:
    """Returns the weight that packed codes stand for, the other way round: [I, O].

    Args:
        packed: see `packed_four_bits`.
        scales: likewise.
        tile_rows: see `four_bit_tile`; not 0.
        dtype: of the result; values are computed in float32 and then rounded.
    """
    num_groups, num_outputs, _ = scales.shape
    weight_GgO = torch.empty(num_groups, GROUP, num_outputs, dtype=dtype)
    packed_GgTr = packed.view(-1, num_groups, GROUP, tile_rows // 2).permute(1, 2, 0, 3)
    step_G1O, middle_G1O = (part.float()[:, None].contiguous() for part in scales.unbind(-1))
    least_G1O = middle_G1O - 8 * step_G1O
    num_at_once = max(1, _EXPANDED_VALUES // (GROUP * num_outputs))
    for start in range(0, num_groups, num_at_once):
        groups = slice(start, start + num_at_once)
        codes_GgO = _tile_codes(packed_GgTr[groups]).flatten(2).float()
        weight_GgO[groups] = torch.addcmul(least_G1O[groups], codes_GgO, step_G1O[groups], out=codes_GgO)
    return weight_GgO.flatten(0, 1)


def _tile_codes(packed: Tensor) -> Tensor:
    """Returns the codes of tiles, uint8 [..., outputs]: the first half of a tile is in the low four bits."""
    return torch.cat((packed & 0x0F, packed >> 4), dim=-1)
