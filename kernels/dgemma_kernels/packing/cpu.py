"""Matrices laid out once for many products with few rows on a processor: what `F.linear` lays out anew at every call.

oneDNN's own layout where torch can make it, plain PyTorch where not: the functions behind it are not part of torch's
public interface, so each matrix is tried when it is packed and falls back by itself (docs/decisions/0013). TorchScript
can compile these modules.

Shape legend: N rows, I input width, O output width.
"""

from __future__ import annotations

from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The layout is chosen for about as many rows as a canvas has.
_ROWS = 32
# Up to so many rows are filled up to a multiple of so many. A tile of the matrix units has 16 rows.
_FILLED_TO = ((128, 16), (256, 64), (inf, 128))


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
    """

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        packed = _pack(weight_OI) if weight_OI.dtype is torch.bfloat16 else None
        # In float32 the layout gains nothing, and a transposed copy a little.
        self.weight, self.is_packed = (_transposed(weight_OI), False) if packed is None else (packed, True)

    def forward(self, x_NI: Tensor) -> Tensor:
        """Returns [N, O] in `x`'s dtype, which must be the weight's; see `filled` on N."""
        return _bare(x_NI, self.weight) if self.is_packed else torch.mm(x_NI, self.weight)


class PackedGate(nn.Module):
    """`gelu_tanh(x @ gate.T) * (x @ up.T)` for one pair of weights, in two operations where oneDNN can.

    Args:
        gate_OI: on a processor, bfloat16 or float32; not read again.
        up_OI: likewise.
    """

    def __init__(self, gate_OI: Tensor, up_OI: Tensor) -> None:
        super().__init__()
        gate, up = _pack(gate_OI), _pack(up_OI)
        self.is_packed = gate is not None and up is not None
        self.gate = gate if gate is not None and up is not None else _transposed(gate_OI)
        self.up = up if gate is not None and up is not None else _transposed(up_OI)

    def forward(self, x_NI: Tensor) -> Tensor:
        """Returns [N, O] in `x`'s dtype, which must be the weights'."""
        if self.is_packed:
            return _times(x_NI, self.up, _gelu(x_NI, self.gate))
        return F.gelu(torch.mm(x_NI, self.gate), approximate="tanh").mul_(torch.mm(x_NI, self.up))


def _pack(weight_OI: Tensor) -> Tensor | None:
    """Returns the weight in oneDNN's layout, or None where this torch, processor or shape does not do as it should."""
    weight_OI = weight_OI.detach().contiguous()
    probe = torch.linspace(-1, 1, weight_OI.shape[1], dtype=torch.float32).to(weight_OI.dtype)[None]
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, _ROWS)
        once, twice = _bare(probe, packed), _times(probe, packed, _gelu(probe, packed))
    except (AttributeError, RuntimeError, TypeError):
        return None
    expected = F.linear(probe, weight_OI)
    right = F.gelu(expected.float(), approximate="tanh") * expected.float()
    close = torch.allclose(once, expected, rtol=0.02, atol=0.02) and torch.allclose(
        twice.float(), right, rtol=0.05, atol=0.05
    )
    return packed if close else None


def _transposed(weight_OI: Tensor) -> Tensor:
    return weight_OI.detach().t().contiguous()


def _bare(x_NI: Tensor, packed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_NI, packed, None, "none", [], "")


def _gelu(x_NI: Tensor, packed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_NI, packed, None, "gelu", [], "tanh")


def _times(x_NI: Tensor, packed: Tensor, other_NO: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_NI, other_NO, packed, None, "mul")
