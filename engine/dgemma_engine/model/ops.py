"""The one switch between plain PyTorch and kernels: a model is given an `Ops` and calls nothing else.

Every field but `fused` has the signature of the function of the same name in `dgemma_kernels.reference.plain`. Where
there are fused operations, `backends.cuda.model.fused` makes a model of them that calls hardly any of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from dgemma_kernels import reference
from torch import Tensor

from dgemma_engine.model.fused_ops import FusedOps


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """The tensor operations of a layer.

    Attributes:
        fused: operations that do several of them at once, for a whole pass; None runs layer by layer.
    """

    rms_norm: Callable[[Tensor, Tensor | None, float], Tensor]
    apply_rotary: Callable[[Tensor, Tensor, Tensor], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    gated_gelu: Callable[[Tensor], Tensor]
    route: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
    experts: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    softcap: Callable[[Tensor, float], Tensor]
    fused: FusedOps | None = None

    @classmethod
    def reference(cls) -> Self:
        """Plain PyTorch on any device."""
        return cls(
            rms_norm=reference.plain.rms_norm,
            apply_rotary=reference.plain.apply_rotary,
            attention=reference.plain.attention,
            gated_gelu=reference.plain.gated_gelu,
            route=reference.plain.route,
            experts=reference.plain.experts,
            softcap=reference.plain.softcap,
        )

    @classmethod
    def fused_reference(cls) -> Self:
        """Plain PyTorch in the steps of the kernels: what `triton` must compute, for tests."""
        return replace(cls.reference(), fused=FusedOps.reference())

    @classmethod
    def triton(cls) -> Self:
        """The kernels; plain PyTorch for what lies outside of a pass.

        Raises:
            CheckpointError: Triton is not installed.
        """
        return replace(cls.reference(), fused=FusedOps.triton())

    @classmethod
    def of_device(cls, device: torch.device) -> Self:
        """Kernels on CUDA, plain PyTorch elsewhere.

        Raises:
            CheckpointError: see `triton`.
        """
        return cls.triton() if device.type == "cuda" else cls.reference()
