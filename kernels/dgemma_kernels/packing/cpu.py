"""Matrices laid out once for many products with few rows on a processor: what `F.linear` lays out anew at every call.

oneDNN's own layout where torch can make it, plain PyTorch where not: the functions behind it are not part of torch's
public interface, so each matrix is tried when it is packed and falls back by itself (docs/decisions/0013). TorchScript
can compile these modules.

Shape legend: N rows, I input width, O output width.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The layout is chosen for about as many rows as a canvas has.
_ROWS = 64
# Up to so many rows are filled up to a multiple of so many. A token written alone is worth a program of its own:
# 16 rows take 1.6 times as long as one. After that the time grows with every row, with matrix units with every 16.
_FILLED_TO = ((1, 1), (64, 4), (128, 16), (256, 64), (inf, 128))
# Inputs that share a scale in a 4-bit weight.
GROUP = 32
# Greatest distance from one of its 16 values that counts as none, in steps between them: what expansion rounds off, and
# at most what rounding to bfloat16 adds.
_OFF_GRID, _MOST_OFF_GRID = 0.01, 0.2
# Values converted at once.
_PIECE_VALUES = 2**17


class ProductWeights(Enum):
    """Which weights products read.

    DENSE: as they are. ROW_INT8: a product with one row, whose time goes to reading them, reads a second copy in 8 bits
    with a scale per output. ROW_INT4: likewise a copy in 4 bits where the weights were stored in 4 bits and so lose
    nothing, and 8 bits elsewhere. INT8: every product reads weights in 8 bits, and rounds its inputs to 8 bits with a
    scale per row; there is no other copy.
    """

    DENSE = "dense"
    ROW_INT8 = "row_int8"
    ROW_INT4 = "row_int4"
    INT8 = "int8"


def num_filled(num_rows: int) -> int:
    """Returns the number of rows that `filled` makes of so many."""
    step = next(step for most, step in _FILLED_TO if num_rows <= most)
    return -(-num_rows // step) * step


def filled(x_NI: Tensor) -> Tensor:
    """Returns `x` with rows of 0 behind it, up to one of few numbers of whole tiles.

    oneDNN compiles a program for each number of rows and matrix, and keeps it, half a megabyte each. With every number
    that a day of typing brings that is more than a gigabyte; the units work on whole tiles anyway.
    """
    return F.pad(x_NI, (0, 0, 0, num_filled(len(x_NI)) - len(x_NI)))


class PackedMatrix(nn.Module):
    """`x @ weight.T` for one weight.

    Args:
        weight_OI: on a processor, bfloat16 or float32; not read again.
        kind: what products read.

    Attributes:
        is_int8: whether all of them read 8 bits.
        one_row_bits: of the copy for one row; 0 without one.
    """

    def __init__(self, weight_OI: Tensor, kind: ProductWeights = ProductWeights.DENSE) -> None:
        super().__init__()
        all_int8 = _all_in_eight_bits(weight_OI) if kind is ProductWeights.INT8 else None
        self.is_int8, self.is_packed, self.one_row_bits = all_int8 is not None, False, 0
        if all_int8 is not None:
            self.weight, self.scales, self.zeros = all_int8
            self.codes = self.scales
            return
        packed = _pack(weight_OI) if weight_OI.dtype is torch.bfloat16 else None
        # In float32 the layout gains nothing, and a transposed copy a little.
        self.weight, self.is_packed = (_transposed(weight_OI), False) if packed is None else (packed, True)
        few = _few_bits(weight_OI, kind)
        self.one_row_bits, self.codes, self.scales = (0, self.weight, self.weight) if few is None else few
        self.zeros = self.scales

    def forward(self, x_NI: Tensor) -> Tensor:
        """Returns [N, O] in `x`'s dtype, which must be the weight's; see `filled` on N."""
        if self.is_int8:
            return _int8(x_NI, self.weight, self.scales, self.zeros)
        if self.one_row_bits > 0 and x_NI.size(0) == 1:
            if self.one_row_bits == 4:
                return _four_bits(x_NI, self.codes, self.scales)
            return torch.ops.aten._weight_int8pack_mm(x_NI, self.codes, self.scales)
        return _bare(x_NI, self.weight) if self.is_packed else torch.mm(x_NI, self.weight)


class PackedGate(nn.Module):
    """`activation(x @ gate.T) * (x @ up.T)` for one pair of weights, in three operations where oneDNN can.

    Args:
        gate_OI: on a processor, bfloat16 or float32; not read again.
        up_OI: likewise.
        activation: `gelu` in its tanh form, or `silu`.
        kind: what products read.

    Attributes:
        is_int8: whether all of them read 8 bits.
        one_row_bits: of the copy for one row; 0 without one.
    """

    def __init__(
        self,
        gate_OI: Tensor,
        up_OI: Tensor,
        activation: Literal["gelu", "silu"] = "gelu",
        kind: ProductWeights = ProductWeights.DENSE,
    ) -> None:
        super().__init__()
        self.is_gelu = activation == "gelu"
        both_OI = None if kind is ProductWeights.DENSE else torch.cat((gate_OI, up_OI))
        all_int8 = _all_in_eight_bits(both_OI) if kind is ProductWeights.INT8 and both_OI is not None else None
        self.is_int8, self.is_packed, self.one_row_bits = all_int8 is not None, False, 0
        if all_int8 is not None:
            self.gate, self.scales, self.zeros = all_int8
            self.up, self.codes = self.gate, self.scales
            return
        gate, up = _pack(gate_OI), _pack(up_OI)
        self.is_packed = gate is not None and up is not None
        self.gate = gate if gate is not None and up is not None else _transposed(gate_OI)
        self.up = up if gate is not None and up is not None else _transposed(up_OI)
        few = None if both_OI is None else _few_bits(both_OI, kind)
        self.one_row_bits, self.codes, self.scales = (0, self.gate, self.gate) if few is None else few
        self.zeros = self.scales

    def forward(self, x_NI: Tensor) -> Tensor:
        """Returns [N, O] in `x`'s dtype, which must be the weights'."""
        if self.is_int8 or (self.one_row_bits > 0 and x_NI.size(0) == 1):
            gate, up = self._both(x_NI).chunk(2, -1)
            return self.activated(gate).mul_(up)
        if self.is_packed:
            # oneDNN's own product with `gate` as its last step takes a tenth longer than a multiplication afterwards.
            gate = _gelu(x_NI, self.gate) if self.is_gelu else _silu(x_NI, self.gate)
            return gate.mul_(_bare(x_NI, self.up))
        return self.activated(torch.mm(x_NI, self.gate)).mul_(torch.mm(x_NI, self.up))

    def added_to(self, x_NI: Tensor, gate_NO: Tensor, up_NO: Tensor) -> Tensor:
        """Returns `activation(x @ gate.T + gate) * (x @ up.T + up)`, [N, O] in `x`'s dtype.

        Args:
            x_NI: as in `forward`.
            gate_NO: `x`'s dtype or float32.
            up_NO: likewise.
        """
        if self.is_int8 or (self.one_row_bits > 0 and x_NI.size(0) == 1):
            gate, up = self._both(x_NI).chunk(2, -1)
        elif self.is_packed:
            gate, up = _bare(x_NI, self.gate), _bare(x_NI, self.up)
        else:
            gate, up = torch.mm(x_NI, self.gate), torch.mm(x_NI, self.up)
        return self.activated(gate.add_(gate_NO)).mul_(up.add_(up_NO))

    def _both(self, x_NI: Tensor) -> Tensor:
        """Returns both products side by side, of weights in few bits."""
        if self.is_int8:
            return _int8(x_NI, self.gate, self.scales, self.zeros)
        if self.one_row_bits == 4:
            return _four_bits(x_NI, self.codes, self.scales)
        return torch.ops.aten._weight_int8pack_mm(x_NI, self.codes, self.scales)

    def activated(self, gate_NO: Tensor) -> Tensor:
        """Returns the activation of a gate."""
        return F.gelu(gate_NO, approximate="tanh") if self.is_gelu else F.silu(gate_NO)


def _pack(weight_OI: Tensor) -> Tensor | None:
    """Returns the weight in oneDNN's layout, or None where this torch, processor or shape does not do as it should."""
    weight_OI = weight_OI.detach().contiguous()
    probe = torch.linspace(-1, 1, weight_OI.shape[1], dtype=torch.float32).to(weight_OI.dtype)[None]
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, _ROWS)
        once, gelu, silu = _bare(probe, packed), _gelu(probe, packed), _silu(probe, packed)
    except (AttributeError, RuntimeError, TypeError):
        return None
    expected = F.linear(probe, weight_OI)
    close = (
        torch.allclose(once, expected, rtol=0.02, atol=0.02)
        and torch.allclose(gelu.float(), F.gelu(expected.float(), approximate="tanh"), rtol=0.05, atol=0.05)
        and torch.allclose(silu.float(), F.silu(expected.float()), rtol=0.05, atol=0.05)
    )
    return packed if close else None


def _transposed(weight_OI: Tensor) -> Tensor:
    return weight_OI.detach().t().contiguous()


def _bare(x_NI: Tensor, packed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_NI, packed, None, "none", [], "")


def _gelu(x_NI: Tensor, packed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_NI, packed, None, "gelu", [], "tanh")


def _silu(x_NI: Tensor, packed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_NI, packed, None, "swish", [], "")


def _four_bits(x_NI: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    # 32 is `GROUP`, which TorchScript cannot read.
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x_NI, codes, 32, scales)


def _int8(x_NI: Tensor, packed: Tensor, scales_O: Tensor, zeros_O: Tensor) -> Tensor:
    """Returns the product of rows that are rounded to whole numbers from -127 to 127, each with a scale of its own.

    oneDNN takes unsigned inputs, with 128 for 0.
    """
    x_NI, dtype = x_NI.float(), x_NI.dtype
    step_N1 = x_NI.abs().amax(-1, True).clamp_(min=1e-12).div_(127)
    # Flipping the highest bit adds 128; torch converts to unsigned numbers eight times as slowly.
    codes_NI = x_NI.div(step_N1).round_().to(torch.int8).to(torch.uint8).bitwise_xor_(128)
    product_NO = torch.ops.onednn.qlinear_pointwise(
        codes_NI, 1.0, 128, packed, scales_O, zeros_O, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product_NO.mul_(step_N1).to(dtype)


def _all_in_eight_bits(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Returns codes in oneDNN's layout, scales and zeros per output; None where this torch or processor is not exact.

    Processors without instructions for it add pairs of products in 16 bits, which overflow.
    """
    codes, scales_O1 = _eight_bit_codes(weight_OI.detach())
    scales_O, zeros_O = scales_O1[:, 0].contiguous(), torch.zeros(len(codes), dtype=torch.int32)
    probe = torch.ones(1, codes.shape[1])
    try:
        packed = torch.ops.onednn.qlinear_prepack(codes, [_ROWS, codes.shape[1]])
        product_1O = _int8(probe, packed, scales_O, zeros_O)
        largest = torch.ops.onednn.qlinear_prepack(torch.full_like(codes, 127), [_ROWS, codes.shape[1]])
        overflowing_1O = _int8(probe, largest, torch.ones_like(scales_O), zeros_O)
    except (AttributeError, RuntimeError, TypeError):
        return None
    expected_1O = F.linear(probe, codes.float()) * scales_O
    magnitude = codes.float().abs().sum(1).mul_(scales_O).max()
    is_exact = bool((product_1O - expected_1O).abs().max() <= 1e-3 * magnitude) and torch.allclose(
        overflowing_1O, torch.full_like(overflowing_1O, 127.0 * codes.shape[1]), rtol=1e-3
    )
    return (packed, scales_O, zeros_O) if is_exact else None


def _few_bits(weight_OI: Tensor, kind: ProductWeights) -> tuple[int, Tensor, Tensor] | None:
    """Returns bits, codes and scales of a copy for one row; None where there is to be none, or this torch has none."""
    weight_OI = weight_OI.detach()
    try:
        found = _in_four_bits(weight_OI) if kind is ProductWeights.ROW_INT4 else None
        if found is None and kind is not ProductWeights.DENSE:
            found = _in_eight_bits(weight_OI)
    except (AttributeError, RuntimeError):
        return None
    return found


def _in_eight_bits(weight_OI: Tensor) -> tuple[int, Tensor, Tensor] | None:
    codes, scale_O1 = _eight_bit_codes(weight_OI)
    scales = scale_O1[:, 0].to(weight_OI.dtype)
    product = torch.ops.aten._weight_int8pack_mm(_probe(weight_OI), codes, scales)
    return (8, codes, scales) if _is_close(product, weight_OI, 0.05) else None


def _eight_bit_codes(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
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
    codes, step, least = found
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    # The product reads code c as (c - 8) * step + middle.
    scales = torch.stack((step, least + 8 * step), -1).transpose(0, 1).contiguous().to(weight_OI.dtype)
    product = _four_bits(_probe(weight_OI), packed, scales)
    return (4, packed, scales) if _is_close(product, weight_OI, 0.05) else None


def _codes(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Returns codes of 4 bits, [O, I] int32, and step and least value of each group, [O, I / `GROUP`] float32.

    None where the weights are not 16 values; the first piece tells that of most matrices that were not stored so.
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
