"""The one switch between plain PyTorch and kernels: a model is given an `Ops` and calls nothing else.

`Ops` has an operation for each step of a layer, with the signature of the function of the same name in
`dgemma_kernels.reference.plain`. `FusedOps` does several of them at once; where an `Ops` has it,
`backends.cuda.fuse.fuse` makes a model of it. Each fused operation is a kernel of `dgemma_kernels.ops` (`triton()`) or
its plain twin on any device (`reference()`), with the same signature; weights go through `pack` once and are opaque
afterwards. Works on tensors, without layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import torch
from dgemma_kernels import reference
from dgemma_kernels.tensors.formats import Output, RowFormat, Rows, Weight, WeightFormat
from dgemma_kernels.tensors.kv_store import KVStore
from dgemma_kernels.tensors.routing import Routing
from dgemma_kernels.tensors.vocabulary_distribution import Banned, VocabularyDistribution
from torch import Tensor

from dgemma_engine.errors import CheckpointError

if TYPE_CHECKING:
    from dgemma_kernels.launch.launch_table import LaunchTable

Side = TypeVar("Side")
Own = TypeVar("Own")

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


class Beside(Protocol):
    """`side_stream.beside`."""

    def __call__(self, side: Callable[[], Side], own: Callable[[], Own], device: torch.device, /) -> tuple[Side, Own]:
        """Returns what two independent pieces of work return, run in any order or at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedOps:
    """The fused operations.

    Attributes:
        require: refuses a device, or weights in a format, that the operations cannot run on, with a `CheckpointError`.
        pack: a weight as a checkpoint stores it to the one that `linear` and `experts` read.
        tile_rows: most rows of a tile of experts, of (tokens, experts per token, experts, device).
        beside: runs independent work at once where the device's launch table has it so, else one after the other.
        renoises_ahead: whether a step ends with the next canvas, before the host has its scores.
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
    beside: Beside
    renoises_ahead: Callable[[torch.device], bool]

    @classmethod
    def reference(cls) -> Self:
        """Plain PyTorch on any device: the slow reference of a fused pass."""
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
            beside=_in_turn,
            renoises_ahead=lambda _device: False,
        )

    @classmethod
    def triton(cls, table: LaunchTable | None = None) -> Self:
        """The kernels.

        Args:
            table: how they are launched; by default as the table of their tensors' device has it.

        Raises:
            CheckpointError: Triton is not installed.
        """
        try:
            from dgemma_kernels.launch import side_stream
            from dgemma_kernels.launch.launch_table import for_device
            from dgemma_kernels.ops import attention, experts, linear, routing, rows, vocabulary
            from dgemma_kernels.packing.gpu import pack_for_kernel
        except ImportError as error:
            raise CheckpointError(
                f"the GPU kernels need Triton ({error}): pip install triton, or use --device cpu"
            ) from error

        def by_table(operation: Callable[..., Any]) -> Callable[..., Any]:
            return operation if table is None else partial(operation, table=table)

        def renoises_ahead(device: torch.device) -> bool:
            return bool((table or for_device(device)).of("pass")["RENOISE_AHEAD"])

        return cls(
            require=_require_kernels,
            pack=pack_for_kernel,
            tile_rows=lambda tokens, selected, all_experts, device: experts.tile_rows(
                tokens, selected, all_experts, table=table or for_device(device)
            ),
            norm=by_table(rows.norm),
            add_norm=by_table(rows.add_norm),
            merge_norm=by_table(rows.merge_norm),
            norm_rotary=by_table(rows.norm_rotary),
            gated_gelu=by_table(rows.gated_gelu),
            quantise=by_table(rows.quantise),
            linear=by_table(linear.linear),
            route=by_table(routing.route),
            experts=by_table(experts.experts),
            canvas=by_table(attention.canvas),
            causal=by_table(attention.causal),
            distribution=by_table(vocabulary.distribution),
            soft_embeddings=by_table(vocabulary.soft_embeddings),
            beside=by_table(side_stream.beside),
            renoises_ahead=renoises_ahead,
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
        """Plain PyTorch in the steps of the kernels: the reference of `triton`, for tests."""
        return replace(cls.reference(), fused=FusedOps.reference())

    @classmethod
    def triton(cls, table: LaunchTable | None = None) -> Self:
        """The kernels; plain PyTorch for operations outside of a pass.

        Args:
            table: see `FusedOps.triton`.

        Raises:
            CheckpointError: Triton is not installed.
        """
        return replace(cls.reference(), fused=FusedOps.triton(table))

    @classmethod
    def of_device(cls, device: torch.device) -> Self:
        """Kernels on CUDA, plain PyTorch elsewhere.

        Raises:
            CheckpointError: see `triton`.
        """
        return cls.triton() if device.type == "cuda" else cls.reference()


def _in_turn(side: Callable[[], Side], own: Callable[[], Own], _device: torch.device) -> tuple[Side, Own]:
    return side(), own()


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
        raise CheckpointError(f"GPU kernels compute wrong results on {device}: update Triton and the driver")


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
