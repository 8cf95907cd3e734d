"""Tables whose rows are looked up on a processor, such as embeddings: as they are, or each row in 8 bits.

TorchScript can compile these modules. Shape legend: N rows that are looked up, O rows of the table, I width.
"""

from __future__ import annotations

from torch import Tensor, nn

from dgemma_kernels.packing.few_bits import eight_bit_codes


class DenseTable(nn.Module):
    """Rows of a table that are looked up, such as embeddings.

    Args:
        weight_OI: kept as it is.
    """

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        self._weight_OI = weight_OI.detach()

    def forward(self, rows_N: Tensor) -> Tensor:
        """Returns rows by their numbers, float32 [N, I]."""
        return self._weight_OI[rows_N].float()

    def weighted(self, weights_NO: Tensor) -> Tensor:
        """Returns `weights @ table`, [N, I] in the dtype of the weights."""
        return weights_NO @ self._weight_OI.to(weights_NO.dtype)


class EightBitTable(nn.Module):
    """A `DenseTable` of which each row is in 8 bits with a scale.

    Args:
        weight_OI: on a processor, bfloat16 or float32; not read again.
    """

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        self._codes, self._scales_O1 = eight_bit_codes(weight_OI.detach())

    def forward(self, rows_N: Tensor) -> Tensor:
        """See `DenseTable.forward`."""
        return self._codes[rows_N].float().mul_(self._scales_O1[rows_N])

    def weighted(self, weights_NO: Tensor) -> Tensor:
        """See `DenseTable.weighted`."""
        return (weights_NO * self._scales_O1[:, 0].to(weights_NO.dtype)) @ self._codes.to(weights_NO.dtype)
