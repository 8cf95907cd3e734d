"""Fused row operations in plain PyTorch, float32 inside: norms with several readers, residuals, rotary, gated gelu.

Signatures are those of `rows.py`. Shape legend: N rows (tokens), D features, K experts per token, H query heads,
G key-value heads, d head size, I intermediate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_kernels.reference import kv_store, plain
from dgemma_kernels.reference.quantization import quantise_rows
from dgemma_kernels.tensors.formats import Output, RowFormat, Rows
from dgemma_kernels.tensors.kv_store import KVStore


def norm(x_ND: Tensor, outputs: Sequence[Output], eps: float) -> tuple[Rows, ...]:
    """Returns one norm of `x` for each reader."""
    return _read(x_ND.float(), x_ND.dtype, outputs, eps)


def add_norm(
    residual_ND: Tensor, x_ND: Tensor, weight_D: Tensor, outputs: Sequence[Output], eps: float
) -> tuple[Tensor, tuple[Rows, ...]]:
    """Returns `residual + norm(x) * weight`, and a norm of that for each reader."""
    y_ND = (residual_ND.float() + _norm(x_ND, weight_D, eps)).type_as(residual_ND)
    return y_ND, _read(y_ND.float(), y_ND.dtype, outputs, eps)


def merge_norm(
    residual_ND: Tensor,
    dense_ND: Tensor,
    parts_NKD: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    scalar_N: Tensor,
    outputs: Sequence[Output],
    eps: float,
) -> tuple[Tensor, tuple[Rows, ...]]:
    """Ends a layer and begins the next: see `rows.merge_norm`."""
    dense_weight, sparse_weight, merged_weight = weights
    sparse_ND = parts_NKD.float().sum(1)
    inner_ND = _norm(dense_ND, dense_weight, eps) + _norm(sparse_ND, sparse_weight, eps)
    y_ND = residual_ND.float() + _norm(inner_ND, merged_weight, eps)
    y_ND = (y_ND * scalar_N.float()[:, None]).type_as(residual_ND)
    return y_ND, _read(y_ND.float(), y_ND.dtype, outputs, eps)


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
) -> Tensor:
    """Norms and turns queries and keys, norms values, and stores keys and values: see `rows.norm_rotary`."""
    num_tokens, num_kv = heads_NXd.shape[0], store.num_kv
    normed = torch.rms_norm(heads_NXd.float(), (heads_NXd.shape[-1],), None, eps)
    q = normed[:, :num_heads] * q_weight_d.float()
    k = normed[:, num_heads : num_heads + num_kv] * k_weight_d.float()
    cos, sin = cos_Nd.float()[None], sin_Nd.float()[None]
    q, k = plain.apply_rotary(q[None], cos, sin)[0], plain.apply_rotary(k[None], cos, sin)[0]
    k_GSd, v_GSd, first = kv_store.tensors(store)
    start = int(start_1) - first
    k_GSd[:, start : start + num_tokens] = k.transpose(0, 1).to(store.dtype)
    v_GSd[:, start : start + num_tokens] = normed[:, -num_kv:].transpose(0, 1).to(store.dtype)
    return q.to(heads_NXd.dtype)


def gated_gelu(gate_up_N2I: Tensor, row_format: RowFormat) -> Rows:
    """Returns `gelu_tanh(gate) * up`, quantised."""
    inner_NI = plain.gated_gelu(gate_up_N2I.float())
    return quantise_rows(inner_NI if row_format is not RowFormat.PLAIN else inner_NI.type_as(gate_up_N2I), row_format)


def quantise(x_ND: Tensor, row_format: RowFormat) -> Rows:
    """Returns rows in another format."""
    return quantise_rows(x_ND, row_format)


def _norm(x_ND: Tensor, weight_D: Tensor | None, eps: float) -> Tensor:
    weight_D = None if weight_D is None else weight_D.float()
    return torch.rms_norm(x_ND.float(), (x_ND.shape[-1],), weight_D, eps)


def _read(y_ND: Tensor, dtype: torch.dtype, outputs: Sequence[Output], eps: float) -> tuple[Rows, ...]:
    rows: list[Rows] = []
    for output in outputs:
        normed_ND = _norm(y_ND, output.weight_D, eps)
        rows.append(
            quantise_rows(normed_ND.to(dtype) if output.format is RowFormat.PLAIN else normed_ND, output.format)
        )
    return tuple(rows)
