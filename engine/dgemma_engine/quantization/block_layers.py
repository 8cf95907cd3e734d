"""Layers on a processor whose weights stay in ggml's blocks, and are multiplied as they are stored.

A matrix whose groups of 32 inputs have sixteen evenly spaced values (Q4_0, Q4_1, Q4_K) keeps its codes and is
multiplied by torch's product for 4 bits. Any other is expanded again for each use; so is one that this torch or
processor multiplies inexactly, which packing tests. `BlockLinear` replaces `nn.Linear` and `BlockExperts` replaces
`Experts`.

Shape legend: N tokens, D hidden, I input width, O output width, B blocks of a row, b bytes of a block, E experts, K
experts per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from dgemma_kernels.packing.four_bits import (
    GROUP,
    expanded_four_bits,
    four_bit_product,
    four_bit_tile,
    packed_four_bits,
)
from dgemma_kernels.reference.plain import experts_by_product
from torch import Tensor, nn

from dgemma_engine.quantization.ggml_blocks import even_levels, expand, has_even_levels

# Values expanded at once.
_PIECE_VALUES = 2**17
# Rows that read codes; for more, expanding them first takes less time: equal at 80 rows of an EPYC core.
_MOST_CODE_ROWS = 64
# Rows whose products are compared when a matrix is packed: the first ones and the last ones, which lie in another tile.
_PROBED_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FourBitMatrix:
    """A weight [O, I] in 4 bits; few inputs are rounded to bfloat16.

    Attributes:
        codes: see `four_bits.packed_four_bits`.
        scales: likewise.
        tile_rows: see `four_bits.four_bit_tile`.
    """

    codes: Tensor
    scales: Tensor
    tile_rows: int

    def __call__(self, x_NI: Tensor) -> Tensor:
        """Returns `x @ weight.T`, [N, O] in `x`'s dtype."""
        if len(x_NI) > _MOST_CODE_ROWS and self.tile_rows:
            return x_NI @ expanded_four_bits(self.codes, self.scales, self.tile_rows, x_NI.dtype)
        return four_bit_product(x_NI.to(self.scales.dtype).contiguous(), self.codes, self.scales).to(x_NI.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMatrix:
    """A weight [O, I] in the blocks of a file.

    Attributes:
        type_name: of the blocks.
        blocks_OBb: uint8.
    """

    type_name: str
    blocks_OBb: Tensor

    def __call__(self, x_NI: Tensor) -> Tensor:
        """Returns `x @ weight.T`, [N, O] in `x`'s dtype."""
        weight_OI = x_NI.new_empty(len(self.blocks_OBb), x_NI.shape[1])
        step = max(1, _PIECE_VALUES // x_NI.shape[1])
        for start in range(0, len(weight_OI), step):
            weight_OI[start : start + step] = self.rows(start, start + step)
        return F.linear(x_NI, weight_OI)

    def rows(self, start: int, end: int) -> Tensor:
        """Returns rows `start` to `end` of the weight as floats, [rows, I]."""
        blocks_OBb = self.blocks_OBb[start:end]
        return expand(self.type_name, blocks_OBb.flatten(0, 1)).view(len(blocks_OBb), -1)


BlockMatrix = FourBitMatrix | StoredMatrix


def pack_blocks(type_name: str, blocks_OBb: Tensor) -> BlockMatrix:
    """Returns a weight [O, I] in the form in which it is multiplied.

    Args:
        type_name: one of `ggml_types.TENSOR_TYPES`.
        blocks_OBb: uint8, on a processor.
    """
    stored = StoredMatrix(type_name=type_name, blocks_OBb=blocks_OBb)
    levels = even_levels(type_name, blocks_OBb.flatten(0, 1))
    if levels is None:
        return stored
    num_outputs = len(blocks_OBb)
    codes_OI, step_OG, least_OG = (
        part.reshape(num_outputs, -1) for part in (levels.codes.int(), levels.step, levels.least)
    )
    try:
        codes, scales = packed_four_bits(codes_OI, step_OG, least_OG)
        packed = FourBitMatrix(codes=codes, scales=scales, tile_rows=four_bit_tile(codes_OI, codes))
        return packed if _agrees(packed, stored, codes_OI.shape[1]) else stored
    except (AttributeError, RuntimeError):
        return stored


def pack_stack(type_name: str, num_matrices: int, read: Callable[[int], Tensor]) -> tuple[BlockMatrix, ...]:
    """Returns matrices of one shape, such as those of a layer's experts, in memory that they share.

    Otherwise the kept part of each would lie between temporary blocks of packing the next one, and the process would
    take three times the memory of the weights.

    Args:
        type_name: of their blocks.
        num_matrices: how many.
        read: returns the blocks of one, see `pack_blocks`.
    """
    stacks: dict[type, dict[str, Tensor]] = {}
    made: list[BlockMatrix] = []
    for i in range(num_matrices):
        packed = pack_blocks(type_name, read(i))
        parts = {
            field.name: value for field in fields(packed) if isinstance(value := getattr(packed, field.name), Tensor)
        }
        if type(packed) not in stacks:
            stacks[type(packed)] = {name: part.new_empty(num_matrices, *part.shape) for name, part in parts.items()}
        places = {name: stack[i] for name, stack in stacks[type(packed)].items()}
        for name, part in parts.items():
            places[name].copy_(part)
        made.append(replace(packed, **places))
    return tuple(made)


def packed_bytes(type_name: str, num_values: int, stored_bytes: int) -> int:
    """Returns the size of the result of `pack_blocks`.

    Args:
        type_name: of its blocks.
        num_values: of the weight.
        stored_bytes: what its blocks take in the file.
    """
    # Half a byte for each code; step and middle of each group in 16 bits.
    return num_values // 2 + num_values // GROUP * 4 if has_even_levels(type_name) else stored_bytes


class BlockLinear(nn.Module):
    """`nn.Linear` without bias.

    Args:
        matrices: their rows, one after the other, are those of the weight.
    """

    def __init__(self, matrices: Sequence[BlockMatrix]) -> None:
        super().__init__()
        self.matrices = tuple(matrices)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the product with the weight, [..., output] in `x`'s dtype."""
        x_NI = x.flatten(0, -2)
        return torch.cat([matrix(x_NI) for matrix in self.matrices], dim=-1).unflatten(0, x.shape[:-1])


class BlockExperts(nn.Module):
    """A mixture of experts.

    Args:
        gate_up: of each expert the matrix [2I, D], gate first.
        down: of each expert the matrix [D, I].
    """

    def __init__(self, gate_up: Sequence[BlockMatrix], down: Sequence[BlockMatrix]) -> None:
        super().__init__()
        self.gate_up, self.down = tuple(gate_up), tuple(down)

    def forward(self, x_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor) -> Tensor:
        """Returns the weighted sum of the chosen experts, [N, D]."""
        return experts_by_product(x_ND, weights_NK, indices_NK, self.gate_up, self.down)


def _agrees(packed: FourBitMatrix, stored: StoredMatrix, num_inputs: int) -> bool:
    """Whether a product of one row is what the expanded weight gives, within what bfloat16 rounds off."""
    probe_1I = torch.linspace(-1, 1, num_inputs)[None].to(packed.scales.dtype)
    num_outputs, product_1O = len(stored.blocks_OBb), packed(probe_1I).float()
    for start in {0, max(0, num_outputs - _PROBED_ROWS)}:
        rows = stored.rows(start, start + _PROBED_ROWS)
        expected_1O = F.linear(probe_1I.float(), rows)
        most = F.linear(probe_1I.float().abs(), rows.abs()).max()
        if not bool((product_1O[:, start : start + _PROBED_ROWS] - expected_1O).abs().max() <= 0.02 * most):
            return False
    return True
