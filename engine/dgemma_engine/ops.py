"""The one switch between plain PyTorch and kernels: a model is given an `Ops` and calls nothing else.

Every field has the signature of the function of the same name in `dgemma_kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from dgemma_kernels import reference
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """The tensor operations of a layer."""

    rms_norm: Callable[[Tensor, Tensor | None, float], Tensor]
    apply_rotary: Callable[[Tensor, Tensor, Tensor], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    gated_gelu: Callable[[Tensor], Tensor]
    route: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
    experts: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    softcap: Callable[[Tensor, float], Tensor]

    @classmethod
    def reference(cls) -> Self:
        """Plain PyTorch on any device."""
        return cls(
            rms_norm=reference.rms_norm,
            apply_rotary=reference.apply_rotary,
            attention=reference.attention,
            gated_gelu=reference.gated_gelu,
            route=reference.route,
            experts=reference.experts,
            softcap=reference.softcap,
        )
