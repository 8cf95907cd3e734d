"""The RMS norm of float32 hidden states in three operations and a division.

Shape legend: N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LeanNorm(nn.Module):
    """RMS norm with its scale.

    Args:
        scale_D: its scale; may be one for each of several heads.
        size: width.
        eps: added to the mean square.
    """

    def __init__(self, scale_D: Tensor, size: int, eps: float) -> None:
        super().__init__()
        self._scale_D = scale_D.detach().float() * size**0.5
        self._least = torch.full((1,), (size * eps) ** 0.5)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Returns the norm of `x`, float32."""
        return (x_ND * self._scale_D).div_(self.length(x_ND))

    def added_to(self, base_ND: Tensor, x_ND: Tensor) -> Tensor:
        """Returns `base` plus the norm of `x`."""
        return torch.addcdiv(base_ND, x_ND * self._scale_D, self.length(x_ND))

    def length(self, x_ND: Tensor) -> Tensor:
        """Returns what rows of `x` are divided by to be of length 1."""
        # One operation where a mean of squares takes several; `eps` joins as a side of its own.
        return torch.linalg.vector_norm(x_ND, 2, [-1], True).hypot_(self._least)
