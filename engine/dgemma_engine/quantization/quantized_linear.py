"""Layers that keep their weights quantised in memory and expand them for each use, into one buffer for all of them.

`PackedLinear` stands in for `nn.Linear` and `PackedExperts` for `Experts`: same calls, same results as with weights
that were expanded once. Where few experts are chosen only those are expanded.

Shape legend: N tokens, D hidden, E experts, K experts per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.model.ops import Ops
from dgemma_engine.quantization.quantized_tensor import QuantisedTensor


class Scratch:
    """A buffer that every expansion of one model writes to; what it held before is gone.

    Args:
        device: where it lies.
        dtype: of expanded weights.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._buffer = torch.empty(0, dtype=dtype, device=device)

    def reserve(self, num_values: int) -> None:
        """Makes room; called while the model is put together, so that no use of it allocates."""
        if num_values > self._buffer.numel():
            self._buffer = torch.empty(num_values, dtype=self.dtype, device=self._buffer.device)

    def expand(self, *weights: QuantisedTensor) -> list[Tensor]:
        """Returns the weights as floats after each other in the buffer, valid until the next call."""
        expanded: list[Tensor] = []
        start = 0
        for weight in weights:
            end = start + weight.shape.numel()
            expanded.append(weight.dequantise(self.dtype, out=self._buffer[start:end].view(weight.shape)))
            start = end
        return expanded


class PackedLinear(nn.Module):
    """`nn.Linear` without bias.

    Args:
        packed: the weight [output, input].
        scratch: shared with the model's other packed layers.
    """

    def __init__(self, packed: QuantisedTensor, scratch: Scratch) -> None:
        super().__init__()
        self.packed = packed
        self._scratch = scratch
        scratch.reserve(packed.shape.numel())

    def forward(self, x: Tensor) -> Tensor:
        """Returns the product with the weight, [..., output]."""
        return F.linear(x, self._scratch.expand(self.packed)[0])


class PackedExperts(nn.Module):
    """A mixture of experts.

    Args:
        gate_up: weights [E, 2I, D].
        down: weights [E, D, I].
        ops: operations, of which `experts` is called.
        scratch: shared with the model's other packed layers.
    """

    def __init__(self, gate_up: QuantisedTensor, down: QuantisedTensor, ops: Ops, scratch: Scratch) -> None:
        super().__init__()
        self.gate_up = gate_up
        self.down = down
        self._ops = ops
        self._scratch = scratch
        scratch.reserve(gate_up.shape.numel() + down.shape.numel())

    def forward(self, x_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor) -> Tensor:
        """Returns the weighted sum of the chosen experts, [N, D]."""
        gate_up, down = self.gate_up, self.down
        if indices_NK.numel() < gate_up.shape[0]:
            chosen, indices_NK = indices_NK.unique(return_inverse=True)
            gate_up, down = gate_up.select(chosen), down.select(chosen)
        expanded = self._scratch.expand(gate_up, down)
        return self._ops.experts(x_ND, weights_NK, indices_NK, *expanded)
