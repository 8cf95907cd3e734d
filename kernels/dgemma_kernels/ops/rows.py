"""Fused row operations as Triton kernels: norms with several readers, residuals, rotary, gated gelu, quantisation.

Each reads its row once. Signatures are those of `reference/rows.py`. Shape legend: N rows (tokens), D features,
K experts per token, H query heads, G key-value heads, X projected heads, d head size, I intermediate.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, power_of_two
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._rows import gated_gelu_kernel, norm_kernel, norm_rotary_kernel
from dgemma_kernels.tensors.formats import Output, RowFormat, Rows, empty_rows
from dgemma_kernels.tensors.kv_store import KVStore

MOST_OUTPUTS = 3


def norm(x_ND: Tensor, outputs: Sequence[Output], eps: float, *, table: LaunchTable | None = None) -> tuple[Rows, ...]:
    """Root-mean-square norm, once, for up to three readers.

    Args:
        x_ND: contiguous.
        outputs: the readers.
        eps: added to the mean square.
        table: how to launch; by default the device's.
    """
    return _launch(x_ND, outputs, eps, table)


def add_norm(
    residual_ND: Tensor,
    x_ND: Tensor,
    weight_D: Tensor,
    outputs: Sequence[Output],
    eps: float,
    *,
    table: LaunchTable | None = None,
) -> tuple[Tensor, tuple[Rows, ...]]:
    """Returns `y = residual + norm(x) * weight` in the residual's dtype, and a norm of `y` for each reader."""
    y_ND = residual_ND.new_empty(residual_ND.shape)
    return y_ND, _launch(x_ND, outputs, eps, table, residual=residual_ND, weight=weight_D, y=y_ND)


def merge_norm(
    residual_ND: Tensor,
    dense_ND: Tensor,
    parts_NKD: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    scalar_N: Tensor,
    outputs: Sequence[Output],
    eps: float,
    *,
    table: LaunchTable | None = None,
) -> tuple[Tensor, tuple[Rows, ...]]:
    """Ends a layer and begins the next.

    `y = (residual + norm(norm(dense) * w0 + norm(sum of parts) * w1) * w2) * scalar`; the parts are summed in order.

    Args:
        residual_ND: contiguous.
        dense_ND: output of the dense MLP.
        parts_NKD: weighted outputs of each token's experts.
        weights: w0, w1 and w2, each [D].
        scalar_N: of each row, or [1] for all.
        outputs: up to three readers of norms of `y`.
        eps: added to the mean squares.
        table: how to launch; by default the device's.
    """
    y_ND = residual_ND.new_empty(residual_ND.shape)
    rows = _launch(
        dense_ND, outputs, eps, table, residual=residual_ND, weight=weights[0], parts=parts_NKD,
        parts_weight=weights[1], merged_weight=weights[2], scalar=scalar_N, y=y_ND,
    )  # fmt: skip
    return y_ND, rows


def quantise(x_ND: Tensor, row_format: RowFormat, *, table: LaunchTable | None = None) -> Rows:
    """Returns rows in another format."""
    return _launch(x_ND, (Output(format=row_format),), 0.0, table, normed=False)[0]


def norm_rotary(
    heads_NXd: Tensor,
    q_weight_d: Tensor,
    k_weight_d: Tensor,
    cos_Nd: Tensor,
    sin_Nd: Tensor,
    store: KVStore,
    start_1: Tensor,
    num_heads: int,
    eps: float,
    *,
    table: LaunchTable | None = None,
) -> Tensor:
    """Norms and turns queries and keys, norms values, and stores keys and values in place.

    Args:
        heads_NXd: projections, contiguous: H queries, G keys and, where values are no keys, G values.
        q_weight_d: scale of the queries' norm.
        k_weight_d: scale of the keys' norm; the values' has none.
        cos_Nd: cosines of each token's angles; still dimensions have 1.
        sin_Nd: sines; still dimensions have 0.
        store: positions `start` to `start + N` are written.
        start_1: int32 on the device, so that one captured graph serves prompts of any length.
        num_heads: H.
        eps: added to the mean square.
        table: how to launch; by default the device's.

    Returns:
        Queries [N, H, d].
    """
    num_tokens, num_projected, head_dim = heads_NXd.shape
    if head_dim & (head_dim - 1):
        raise ValueError(f"{head_dim=} must be a power of two for the kernels; use the reference operations")
    assert heads_NXd.dtype is store.dtype and head_dim == store.head_dim
    num_kv, q_NHd = store.num_kv, heads_NXd.new_empty(num_tokens, num_heads, head_dim)
    entry = (table or for_device(heads_NXd.device)).of("norm_rotary")
    launch(
        norm_rotary_kernel, (num_tokens, num_heads + 2 * num_kv),
        heads_NXd, q_weight_d, k_weight_d, cos_Nd, sin_Nd, q_NHd, store.place_4, start_1,
        num_projected, num_heads, num_kv, eps, HEAD=head_dim, **entry,
    )  # fmt: skip
    return q_NHd


def gated_gelu(gate_up_N2I: Tensor, row_format: RowFormat, *, table: LaunchTable | None = None) -> Rows:
    """Returns `gelu_tanh(gate) * up` of the two halves of contiguous rows, quantised."""
    num_columns = gate_up_N2I.shape[1] // 2
    rows = empty_rows(gate_up_N2I, num_columns, row_format)
    entry = (table or for_device(gate_up_N2I.device)).of("gated_gelu")
    launch(
        gated_gelu_kernel, (gate_up_N2I.shape[0],),
        gate_up_N2I, rows.data_ND, rows.scale, num_columns,
        FORMAT=row_format.value, BLOCK=_block(num_columns), **entry,
    )  # fmt: skip
    return rows


def _launch(
    x_ND: Tensor,
    outputs: Sequence[Output],
    eps: float,
    table: LaunchTable | None,
    *,
    residual: Tensor | None = None,
    weight: Tensor | None = None,
    parts: Tensor | None = None,
    parts_weight: Tensor | None = None,
    merged_weight: Tensor | None = None,
    scalar: Tensor | None = None,
    y: Tensor | None = None,
    normed: bool = True,
) -> tuple[Rows, ...]:
    assert len(outputs) <= MOST_OUTPUTS, "a fourth reader needs a norm of its own"
    assert x_ND.is_contiguous()
    num_rows, num_columns = x_ND.shape
    rows = tuple(empty_rows(x_ND, num_columns, output.format) for output in outputs)
    absent = [None] * (MOST_OUTPUTS - len(outputs))
    entry = (table or for_device(x_ND.device)).of("norm")
    launch(
        norm_kernel, (num_rows,),
        x_ND, residual, weight, parts, parts_weight, merged_weight, scalar,
        0 if scalar is None or len(scalar) == 1 else 1, y,
        *[row.data_ND for row in rows], *absent,
        *[row.scale for row in rows], *absent,
        *[output.weight_D for output in outputs], *absent,
        num_columns, eps, parts.shape[1] if parts is not None else 0, normed,
        *[output.format.value for output in outputs], *absent,
        BLOCK=_block(num_columns), **entry,
    )  # fmt: skip
    return rows


def _block(num_columns: int) -> int:
    return max(64, power_of_two(num_columns))
