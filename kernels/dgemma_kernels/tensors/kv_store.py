"""Where the keys and values of a layer lie, in a form that is read on the device.

A captured launch keeps its arguments, so an address among them would bind it to one prompt. The address stands in a
tensor that never moves: code that changes the prompt writes that tensor before the next launch.
Shape legend: G key-value heads, S stored positions, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

NUM_FIELDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class KVStore:
    """Keys and values of one layer, [G, S, d] each, contiguous.

    Attributes:
        place_4: int64 on the device: address of the keys, address of the values, S, and the prompt position of the
            first row, which is above 0 where a sliding layer dropped tokens that are no longer visible.
        num_kv: G.
        head_dim: d.
        dtype: of keys and values.
        kept: tensors that live as long as this does.
    """

    place_4: Tensor
    num_kv: int
    head_dim: int
    dtype: torch.dtype
    kept: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, k_GSd: Tensor, v_GSd: Tensor, first: int = 0) -> Self:
        """Returns a store of these tensors, which live as long as the store does.

        Args:
            k_GSd: contiguous.
            v_GSd: likewise.
            first: position of their first row.
        """
        place_4 = torch.tensor(place(k_GSd, v_GSd, first), dtype=torch.int64).to(k_GSd.device)
        num_kv, _, head_dim = k_GSd.shape
        return cls(place_4=place_4, num_kv=num_kv, head_dim=head_dim, dtype=k_GSd.dtype, kept=(k_GSd, v_GSd))


def place(k_GSd: Tensor, v_GSd: Tensor, first: int) -> list[int]:
    """Returns what `KVStore.place_4` holds for these tensors."""
    assert k_GSd.is_contiguous() and v_GSd.is_contiguous() and k_GSd.shape == v_GSd.shape
    return [k_GSd.data_ptr(), v_GSd.data_ptr(), k_GSd.shape[1], first]
