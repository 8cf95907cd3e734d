"""Matrices laid out once for many products with few rows on a processor: what `F.linear` lays out anew at every call.

oneDNN's own layout where torch can make it, plain PyTorch where not: the functions behind it are not part of torch's
public interface, so each matrix is tried when it is packed and falls back by itself (docs/decisions/0013). TorchScript
can compile these modules.

Shape legend: N rows, I input width, O output width.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_kernels.packing.few_bits import PACKED_ROWS, FewBitMatrix, RowWeights, Unmerged

# Most rows, and the multiple to which that many are padded. One row, a single token, is not padded: 16 rows take 1.6
# times as long. Above that the time grows with every row, or with every 16 where the processor has matrix units.
_FILLED_TO = ((1, 1), (64, 4), (128, 16), (256, 64), (inf, 128))


def num_filled(num_rows: int) -> int:
    """Returns the number of rows after padding by `filled`."""
    step = next(step for most, step in _FILLED_TO if num_rows <= most)
    return -(-num_rows // step) * step


def filled(x_NI: Tensor) -> Tensor:
    """Returns `x` padded with rows of 0, up to one of a few numbers of whole tiles.

    oneDNN compiles a program for each number of rows and matrix, and keeps it, half a megabyte each: unpadded, a day
    of typing takes more than a gigabyte. Matrix units work on whole tiles anyway.
    """
    step = next(step for most, step in _FILLED_TO if len(x_NI) <= most)
    return F.pad(x_NI, (0, 0, 0, -len(x_NI) % step))


class PackedMatrix(nn.Module):
    """`x @ weight.T` for one weight.

    Args:
        weight_OI: on a processor, bfloat16 or float32; not read again.
        row: what products with one row read, or a few.
        int8: whether all others read 8 bits.
        unmerged: see `FewBitMatrix`.

    Attributes:
        few_bits: the products that read few bits.
    """

    def __init__(
        self,
        weight_OI: Tensor,
        row: RowWeights = RowWeights.DENSE,
        *,
        int8: bool = False,
        unmerged: Unmerged | None = None,
    ) -> None:
        super().__init__()
        self.few_bits = FewBitMatrix(weight_OI, row, int8=int8, unmerged=unmerged)
        self.is_packed, self.weight = False, torch.empty(0)
        if self.few_bits.input_levels == 0:
            packed = _pack(weight_OI) if weight_OI.dtype is torch.bfloat16 else None
            # In float32 the layout gains nothing, and a transposed copy a little.
            self.weight, self.is_packed = (_transposed(weight_OI), False) if packed is None else (packed, True)

    def forward(self, x_NI: Tensor) -> Tensor:
        """Returns [N, O] in `x`'s dtype, which must be the weight's; see `filled` on N."""
        if self.few_bits.takes(x_NI.size(0)):
            return self.few_bits(x_NI)
        return _bare(x_NI, self.weight) if self.is_packed else torch.mm(x_NI, self.weight)


class PackedGate(nn.Module):
    """`activation(x @ gate.T) * (x @ up.T)` for one pair of weights, in three operations where oneDNN can.

    Args:
        gate_OI: on a processor, bfloat16 or float32; not read again.
        up_OI: likewise.
        activation: `gelu` in its tanh form, or `silu`.
        row: what products with one row read, or a few.
        int8: whether all others read 8 bits.
        unmerged: see `FewBitMatrix`; of gate and up side by side.

    Attributes:
        few_bits: the products that read few bits, of gate and up side by side.
    """

    def __init__(
        self,
        gate_OI: Tensor,
        up_OI: Tensor,
        activation: Literal["gelu", "silu"] = "gelu",
        row: RowWeights = RowWeights.DENSE,
        *,
        int8: bool = False,
        unmerged: Unmerged | None = None,
    ) -> None:
        super().__init__()
        self.is_gelu = activation == "gelu"
        is_dense = row is RowWeights.DENSE and not int8
        both_OI = gate_OI if is_dense else torch.cat((gate_OI, up_OI))
        self.few_bits = FewBitMatrix(both_OI, row, int8=int8, unmerged=unmerged)
        self.is_packed, self.gate, self.up = False, torch.empty(0), torch.empty(0)
        if self.few_bits.input_levels == 0:
            gate, up = _pack(gate_OI), _pack(up_OI)
            self.is_packed = gate is not None and up is not None
            self.gate = gate if gate is not None and up is not None else _transposed(gate_OI)
            self.up = up if gate is not None and up is not None else _transposed(up_OI)

    def forward(self, x_NI: Tensor) -> Tensor:
        """Returns [N, O] in `x`'s dtype, which must be the weights'."""
        if self.few_bits.takes(x_NI.size(0)):
            gate, up = self.few_bits(x_NI).chunk(2, -1)
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
        if self.few_bits.takes(x_NI.size(0)):
            gate, up = self.few_bits(x_NI).chunk(2, -1)
        elif self.is_packed:
            gate, up = _bare(x_NI, self.gate), _bare(x_NI, self.up)
        else:
            gate, up = torch.mm(x_NI, self.gate), torch.mm(x_NI, self.up)
        return self.activated(gate.add_(gate_NO)).mul_(up.add_(up_NO))

    def activated(self, gate_NO: Tensor) -> Tensor:
        """Returns the activation of a gate."""
        return F.gelu(gate_NO, approximate="tanh") if self.is_gelu else F.silu(gate_NO)


def _pack(weight_OI: Tensor) -> Tensor | None:
    """Returns the weight in oneDNN's layout, or None where this torch, processor or shape gives a wrong result."""
    weight_OI = weight_OI.detach().contiguous()
    probe = torch.linspace(-1, 1, weight_OI.shape[1], dtype=torch.float32).to(weight_OI.dtype)[None]
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, PACKED_ROWS)
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
