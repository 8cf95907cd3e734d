"""The one switch between plain PyTorch and kernels: a model is given an `Ops` and calls nothing else.

`Ops` has an operation for each step of a layer, with the signature of the function of the same name in
`dgemma_kernels.reference.plain`. `FusedOps` does several of them at once; where an `Ops` has it,
`backends.cuda.fuse.fuse` makes a model of it. Each fused operation is a kernel of `dgemma_kernels.ops` (`triton()`) or
its plain twin on any device (`reference()`), with the same signature; weights go through `pack` once and are opaque
afterwards. Knows tensors; knows no layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from dgemma_kernels import reference
from dgemma_kernels.tensors.formats import Output, RowFormat, Rows, Weight, WeightFormat
from dgemma_kernels.tensors.kv_store import KVStore
from dgemma_kernels.tensors.routing import Routing
from dgemma_kernels.tensors.vocabulary_distribution import Banned, VocabularyDistribution
from torch import Tensor

from dgemma_engine.errors import CheckpointError

# Rows of a tile where none is launched.
_REFERENCE_TILE_ROWS = 16
# CUDA's names for the first cards that multiply bfloat16, and that convert fp8.
_BFLOAT16_CARDS, _FP8_CARDS = (8, 0), (8, 9)


class Linear(Protocol):
    """`linear.linear`."""

    def __call__(self, rows: Rows, weight: Any, out_NO: Tensor | None = None, /) -> Tensor:
        """Returns `rows @ weight.T`."""
        ...


class Route(Protocol):
    """`routing.route`."""

    def __call__(
        self,
        x_ND: Tensor,
        router_ED: Tensor,
        per_expert_scale_E: Tensor,
        num_selected: int,
        tile_rows: int,
        *,
        arrivals_1: Tensor | None = None,
    ) -> Routing:
        """Chooses experts."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedOps:
    """The fused operations.

    Attributes:
        require: refuses a device, or weights in a format, that the operations cannot run on, with a `CheckpointError`.
        pack: a weight as a checkpoint stores it to the one that `linear` and `experts` read.
        tile_rows: most rows of a tile of experts, of (tokens, experts per token, experts, device).
    """

    require: Callable[[torch.device, frozenset[WeightFormat]], None]
    pack: Callable[[Weight], Any]
    tile_rows: Callable[[int, int, int, torch.device], int]
    norm: Callable[[Tensor, Sequence[Output], float], tuple[Rows, ...]]
    add_norm: Callable[[Tensor, Tensor, Tensor, Sequence[Output], float], tuple[Tensor, tuple[Rows, ...]]]
    merge_norm: Callable[
        [Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor], Tensor, Sequence[Output], float],
        tuple[Tensor, tuple[Rows, ...]],
    ]
    norm_rotary: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, KVStore, Tensor, int, float], Tensor]
    gated_gelu: Callable[[Tensor, RowFormat], Rows]
    quantise: Callable[[Tensor, RowFormat], Rows]
    linear: Linear
    route: Route
    experts: Callable[[Rows, Routing, Any, Any], Tensor]
    canvas: Callable[[Tensor, KVStore, Tensor, Tensor, Tensor, int | None], Tensor]
    causal: Callable[[Tensor, KVStore, Tensor, Tensor, Tensor, Tensor, int | None], Tensor]
    distribution: Callable[[Tensor, Tensor, Tensor, float, Banned | None], VocabularyDistribution]
    soft_embeddings: Callable[[Tensor, Tensor, float], Tensor]

    @classmethod
    def reference(cls) -> Self:
        """Plain PyTorch on any device: what a fused pass must compute, slowly."""
        return cls(
            require=lambda _device, _formats: None,
            pack=lambda weight: weight,
            tile_rows=lambda _tokens, _selected, _experts, _device: _REFERENCE_TILE_ROWS,
            norm=reference.rows.norm,
            add_norm=reference.rows.add_norm,
            merge_norm=reference.rows.merge_norm,
            norm_rotary=reference.rows.norm_rotary,
            gated_gelu=reference.rows.gated_gelu,
            quantise=reference.rows.quantise,
            linear=reference.linear.linear,
            route=reference.routing.route,
            experts=reference.experts.experts,
            canvas=reference.attention.canvas,
            causal=reference.attention.causal,
            distribution=reference.vocabulary.distribution,
            soft_embeddings=reference.vocabulary.soft_embeddings,
        )

    @classmethod
    def triton(cls) -> Self:
        """The kernels.

        Raises:
            CheckpointError: Triton is not installed.
        """
        try:
            from dgemma_kernels.launch.launch_table import for_device
            from dgemma_kernels.ops import attention, experts, linear, routing, rows, vocabulary
            from dgemma_kernels.packing.gpu import pack_for_kernel
        except ImportError as error:
            raise CheckpointError(
                f"the GPU kernels need Triton ({error}): pip install triton, or use --device cpu"
            ) from error
        return cls(
            require=_require_kernels,
            pack=pack_for_kernel,
            tile_rows=lambda tokens, selected, all_experts, device: experts.tile_rows(
                tokens, selected, all_experts, table=for_device(device)
            ),
            norm=rows.norm,
            add_norm=rows.add_norm,
            merge_norm=rows.merge_norm,
            norm_rotary=rows.norm_rotary,
            gated_gelu=rows.gated_gelu,
            quantise=rows.quantise,
            linear=linear.linear,
            route=routing.route,
            experts=experts.experts,
            canvas=attention.canvas,
            causal=attention.causal,
            distribution=vocabulary.distribution,
            soft_embeddings=vocabulary.soft_embeddings,
        )


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


def _require_kernels(device: torch.device, formats: frozenset[WeightFormat]) -> None:
    _require_card(device, formats)
    _require_compiler(device)


def _require_compiler(device: torch.device) -> None:
    """Builds and runs a small kernel: Triton compiles a launcher in C for each one."""
    from dgemma_kernels.ops import experts

    try:
        total = experts.combine(torch.ones(1, 2, 16, dtype=torch.bfloat16, device=device)).sum().item()
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # whatever the compiler, the linker or the driver raise
        first_line = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"Triton cannot build GPU kernels here ({type(error).__name__}: {first_line}): install a C compiler and "
            "the headers of this Python (Debian and Ubuntu: apt install gcc python3-dev; Fedora: dnf install gcc "
            "python3-devel), or use --device cpu"
        ) from error
    if total != 32:
        raise CheckpointError(f"GPU kernels compute nonsense on {device}: update Triton and the driver")


def _require_card(device: torch.device, formats: frozenset[WeightFormat]) -> None:
    if device.type != "cuda":
        from triton import knobs

        if not knobs.runtime.interpret:
            raise CheckpointError(
                f"the GPU kernels cannot run on {device}: use Ops.reference() there, or set TRITON_INTERPRET=1 before "
                "the start to have them interpreted, slowly"
            )
        return
    capability, name = torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device)
    if capability < _BFLOAT16_CARDS:
        raise CheckpointError(f"{name} has no bfloat16, which the GPU kernels compute in: use --device cpu")
    if capability < _FP8_CARDS and not formats.isdisjoint({WeightFormat.FP8, WeightFormat.NVFP4}):
        raise CheckpointError(
            f"{name} has no 8-bit floats, which this model's weights are stored with: quantise the bf16 checkpoint "
            "with dgemma-engine quantize --format int4 or int8"
        )
