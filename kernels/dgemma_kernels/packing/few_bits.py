"""Weights of few bits for products on a processor: copies for one row, and 8 bits for weights and inputs of all rows.

Packing a matrix tests whether this torch and processor can compute its products, and exactly. TorchScript can compile
the products.

Shape legend: N rows, I input width, O output width, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_kernels.packing.four_bits import GROUP, four_bit_product, packed_four_bits

# The layout is chosen for about as many rows as a canvas has.
PACKED_ROWS = 64
# Greatest distance from one of its 16 values that counts as none, in steps between them: what expansion rounds off, and
# at most what rounding to bfloat16 adds.
_OFF_GRID, _MOST_OFF_GRID = 0.01, 0.2
# Values converted at once.
_PIECE_VALUES = 2**17
# Of a row that reads a copy: in float32 these products are not vectorised.
_ROW_DTYPE = torch.bfloat16
# The product of one row with weights in 8 bits reads so many inputs at once: of a width that is no multiple of it, it
# would read beyond the matrix.
VECTOR_INPUTS = 32
# Most rows that read a copy in 4 bits, where that is measured faster.
FEW_ROWS = 4
# Largest whole numbers that inputs of products in 8 bits are rounded to: the first that the processor is exact with.
INPUT_LEVELS = (127, 63)


class RowWeights(Enum):
    """Which weights a product with one row reads, whose time goes to reading them.

    DENSE: as they are. INT8: a copy in 8 bits with a scale per output. INT4: a copy in 4 bits where the weights were
    stored in 4 bits and so lose nothing, and in 8 bits elsewhere. FEW_INT4: the same, and the copy in 4 bits is read by
    products with up to `FEW_ROWS` rows. Beside a copy the rows are rounded to bfloat16.
    """

    DENSE = "dense"
    INT8 = "int8"
    INT4 = "int4"
    FEW_INT4 = "few int4"

    @property
    def in_four_bits(self) -> bool:
        """Whether a copy is in 4 bits where the weights were stored so."""
        return self in {RowWeights.INT4, RowWeights.FEW_INT4}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductKinds:
    """What the products of a model read.

    Attributes:
        row: those with one row, or a few.
        int8_mlp: whether MLPs read weights in 8 bits for any number of rows, and round their inputs to 8 or 7 bits with
            a scale per row. Attention and output matrix lose several times as much by that.
        is_compact: whether the output matrix reads 8 bits too, and the embeddings are kept in 8 bits: a model that is
            large for a processor has each weight once. Attention, a tenth of the weights, stays dense.
    """

    row: RowWeights
    int8_mlp: bool
    is_compact: bool = False


DENSE = ProductKinds(row=RowWeights.DENSE, int8_mlp=False)
COMPACT = ProductKinds(row=RowWeights.DENSE, int8_mlp=True, is_compact=True)
"""Where 8 bits are not exact on a processor, its products read dense weights."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Unmerged:
    """What a weight with a low-rank adapter merged into it is the sum of: `base + b @ a`.

    Attributes:
        base_OI: in the weight's dtype.
        a_RI: from the inputs, float32.
        b_OR: to the outputs, float32.
    """

    base_OI: Tensor
    a_RI: Tensor
    b_OR: Tensor


class FewBitMatrix(nn.Module):
    """The products of one weight that read it in few bits.

    Args:
        weight_OI: on a processor, bfloat16 or float32; not read again.
        row: what products with one row read, or a few.
        int8: whether those with more read 8 bits.
        unmerged: of a weight that an adapter was merged into, which has more than 16 values in a group. Where `row` is
            in 4 bits and the base was stored so, products with one row read the base, and the factors in 8 bits.

    Attributes:
        row_bits: of the copy for one row; 0 without one.
        most_rows: that read the copy; 0 without one.
        has_row_factors: whether the copy for one row is the base's, with the factors beside it.
        input_levels: what inputs of products with more rows are rounded to at most; 0 where those read no 8 bits.
    """

    def __init__(self, weight_OI: Tensor, row: RowWeights, *, int8: bool, unmerged: Unmerged | None = None) -> None:
        super().__init__()
        none = torch.empty(0)
        parts = None if unmerged is None or not row.in_four_bits else _row_parts(unmerged)
        copy, factors = (_row_copy(weight_OI.detach(), row), None) if parts is None else parts
        self.row_bits, self._row_codes, self._row_scales = (0, none, none) if copy is None else copy
        is_for_few = row is RowWeights.FEW_INT4 and self.row_bits == 4
        self.most_rows = FEW_ROWS if is_for_few else int(self.row_bits > 0)
        self.has_row_factors = factors is not None
        self._a_codes, self._a_scales, self._b_codes, self._b_scales = (none,) * 4 if factors is None else factors
        whole = _all_in_eight_bits(weight_OI) if int8 else None
        self._codes, self._scales_O, self._zeros_O, self.input_levels = (
            (none, none, none, 0) if whole is None else whole
        )

    def takes(self, num_rows: int) -> bool:
        """Whether products of so many rows read few bits."""
        return self.input_levels > 0 or num_rows <= self.most_rows

    def forward(self, x_NI: Tensor) -> Tensor:
        """Returns the product, [N, O] in `x`'s dtype, of as many rows as it takes."""
        if x_NI.size(0) > self.most_rows:
            return int8_product(x_NI, self._codes, self._scales_O, self._zeros_O, self.input_levels)
        few_NI = x_NI.to(self._row_scales.dtype)
        if self.row_bits == 4:
            product_NO = four_bit_product(few_NI, self._row_codes, self._row_scales).to(x_NI.dtype)
            if self.has_row_factors:
                reduced_NR = torch.ops.aten._weight_int8pack_mm(few_NI, self._a_codes, self._a_scales)
                product_NO.add_(torch.ops.aten._weight_int8pack_mm(reduced_NR, self._b_codes, self._b_scales))
            return product_NO
        return torch.ops.aten._weight_int8pack_mm(few_NI, self._row_codes, self._row_scales).to(x_NI.dtype)


def int8_product(x_NI: Tensor, packed: Tensor, scales_O: Tensor, zeros_O: Tensor, levels: int) -> Tensor:
    """Returns the product of rows that are rounded to whole numbers, each with a scale of its own, in `x`'s dtype.

    Args:
        x_NI: float32 or bfloat16.
        packed: see `_all_in_eight_bits`, likewise the others.
        scales_O: of the outputs.
        zeros_O: 0.
        levels: the largest of those whole numbers, 127 or 63.
    """
    x_NI, dtype = x_NI.float(), x_NI.dtype
    step_N1 = torch.maximum(x_NI.amax(-1, True), x_NI.amin(-1, True).neg_()).clamp_(min=1e-12).div_(levels)
    # oneDNN takes unsigned inputs, with 128 or 64 for 0. Flipping the highest bit adds 128; torch converts numbers to
    # unsigned ones eight times as slowly.
    codes_NI = x_NI.div(step_N1).round_().to(torch.int8).to(torch.uint8)
    codes_NI = codes_NI.bitwise_xor_(128) if levels == 127 else codes_NI.add_(levels + 1)
    product_NO = torch.ops.onednn.qlinear_pointwise(
        codes_NI, 1.0, levels + 1, packed, scales_O, zeros_O, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product_NO.mul_(step_N1).to(dtype)


def _all_in_eight_bits(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor, int] | None:
    """Returns what `int8_product` reads of a weight, and with how many levels of inputs it is exact.

    Processors without instructions for it add pairs of products in 16 bits, which overflow unless inputs have 7 bits.

    Returns:
        Codes in oneDNN's layout, scales and zeros per output, the levels; None where this torch or processor is not
        exact with any.
    """
    codes, scales_O1 = eight_bit_codes(weight_OI.detach())
    scales_O, zeros_O = scales_O1[:, 0].contiguous(), torch.zeros(len(codes), dtype=torch.int32)
    probe, expected_1O = torch.ones(1, codes.shape[1]), codes.float().sum(1).mul_(scales_O)[None]
    bound = 1e-3 * float(codes.float().abs().sum(1).mul_(scales_O).max())
    try:
        packed = torch.ops.onednn.qlinear_prepack(codes, [PACKED_ROWS, codes.shape[1]])
        largest = torch.ops.onednn.qlinear_prepack(torch.full_like(codes, 127), [PACKED_ROWS, codes.shape[1]])
        for levels in INPUT_LEVELS:
            product_1O = int8_product(probe, packed, scales_O, zeros_O, levels)
            most_1O = int8_product(probe, largest, torch.ones_like(scales_O), zeros_O, levels)
            is_exact = bool((product_1O - expected_1O).abs().max() <= bound)
            if is_exact and torch.allclose(most_1O, torch.full_like(most_1O, 127.0 * codes.shape[1]), rtol=1e-3):
                return packed, scales_O, zeros_O, levels
    except (AttributeError, RuntimeError, TypeError):
        pass
    return None


def _row_copy(weight_OI: Tensor, row: RowWeights) -> tuple[int, Tensor, Tensor] | None:
    """Returns bits, codes and scales of a copy for one row; None where there is to be none, or this torch has none."""
    try:
        found = _in_four_bits(weight_OI) if row.in_four_bits else None
        if found is None and row is not RowWeights.DENSE:
            found = _in_eight_bits(weight_OI)
    except (AttributeError, RuntimeError):
        return None
    return found


def _row_parts(
    unmerged: Unmerged,
) -> tuple[tuple[int, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]] | None:
    """Returns the base's copy in 4 bits, and codes and scales of both factors; None if one of the three does not exist.

    In float32 the factors are four times as many bytes; in bfloat16 the overhead of so small a product is larger.
    """
    base = _row_copy(unmerged.base_OI, RowWeights.INT4)
    if base is None or base[0] != 4:
        return None
    padding = -len(unmerged.a_RI) % VECTOR_INPUTS
    a = _row_copy(F.pad(unmerged.a_RI, (0, 0, 0, padding)), RowWeights.INT8)
    b = _row_copy(F.pad(unmerged.b_OR, (0, padding)), RowWeights.INT8)
    return None if a is None or b is None else (base, (*a[1:], *b[1:]))


def _in_eight_bits(weight_OI: Tensor) -> tuple[int, Tensor, Tensor] | None:
    if weight_OI.shape[1] % VECTOR_INPUTS:
        return None
    codes, scale_O1 = eight_bit_codes(weight_OI)
    scales = scale_O1[:, 0].to(_ROW_DTYPE)
    product = torch.ops.aten._weight_int8pack_mm(_probe(weight_OI).to(_ROW_DTYPE), codes, scales)
    return (8, codes, scales) if _is_close(product, weight_OI, 0.05) else None


def eight_bit_codes(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Returns codes [O, I] int8, and the scale of each output, [O, 1] float32."""
    codes, scale_O1 = torch.empty_like(weight_OI, dtype=torch.int8), weight_OI.new_empty(len(weight_OI), 1).float()
    for piece in _pieces(weight_OI):
        values_OI = weight_OI[piece].float()
        scale_O1[piece] = values_OI.abs().amax(1, keepdim=True).clamp_(min=1e-12).div_(127)
        codes[piece] = (values_OI / scale_O1[piece]).round_()
    return codes, scale_O1


def _in_four_bits(weight_OI: Tensor) -> tuple[int, Tensor, Tensor] | None:
    if weight_OI.shape[1] % GROUP or (found := _codes(weight_OI)) is None:
        return None
    packed, scales = packed_four_bits(*found)
    product = four_bit_product(_probe(weight_OI).to(_ROW_DTYPE), packed, scales)
    return (4, packed, scales) if _is_close(product, weight_OI, 0.05) else None


def _codes(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Returns codes of 4 bits, [O, I] int32, and step and least value of each group, [O, I / `GROUP`] float32.

    None where a group has other values than 16 evenly spaced ones; most such matrices fail at the first piece.
    """
    codes = torch.empty_like(weight_OI, dtype=torch.int32)
    step, least = (torch.empty(len(weight_OI), weight_OI.shape[1] // GROUP) for _ in range(2))
    for piece in _pieces(weight_OI):
        groups = weight_OI[piece].float().unflatten(1, (-1, GROUP))
        least[piece], most = groups.aminmax(dim=-1)
        step[piece] = (most - least[piece]).div_(15).clamp_(min=1e-12)
        rounding = torch.maximum(most.abs(), least[piece].abs()).mul_(torch.finfo(weight_OI.dtype).eps)
        most_off = rounding.div_(step[piece]).add_(_OFF_GRID).clamp_(max=_MOST_OFF_GRID)
        places = (groups - least[piece][..., None]).div_(step[piece][..., None])
        nearest = places.round()
        codes[piece] = nearest.flatten(1)
        if (places.sub_(nearest).abs_().amax(-1) > most_off).any():
            return None
    return codes, step, least


def _pieces(weight_OI: Tensor) -> list[slice]:
    """Returns rows whose values in float32 stay in a processor's cache: a quarter of the time of all at once."""
    num_rows = max(1, _PIECE_VALUES // weight_OI.shape[1])
    return [slice(start, start + num_rows) for start in range(0, len(weight_OI), num_rows)]


def _probe(weight_OI: Tensor) -> Tensor:
    return torch.linspace(-1, 1, weight_OI.shape[1], dtype=torch.float32).to(weight_OI.dtype)[None]


def _is_close(product_1O: Tensor, weight_OI: Tensor, share: float) -> bool:
    """Whether a product with the probe is right within a share of the largest output."""
    expected_1O = F.linear(_probe(weight_OI), weight_OI).float()
    return bool((product_1O.float() - expected_1O).abs().max() <= share * expected_1O.abs().max())
