"""Attention of several rows over one prompt as a Triton kernel: canvases in both directions, or branches causally.

Keys and values of the pass stand in the store after the prompt's (`rows.norm_rotary` puts them there). The store's
address and the prompt's length are read on the device, so that one captured graph serves every prompt. The scale is
1.0. Where a pass makes fewer programs than the launch table's `FILL`, the keys of each are given to several (split-KV),
whose sums a second kernel joins in order; `LOOPS` says whether stored keys have a loop of their own. Signatures of
`reference/attention.py`. Shape legend: L tokens of the pass, all rows one after another; H query heads, d head size,
S shares of the keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, num_blocks
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._attention import attention_kernel, join_splits_kernel
from dgemma_kernels.tensors.kv_store import KVStore

EVERYTHING = 2**30
HEAD_SIZES = (256, 512)
# Shares of the keys of one program: 16 blocks of 64 are a window.
MOST_SPLITS = 16


def canvas(
    q_LHd: Tensor,
    store: KVStore,
    row_L: Tensor,
    num_visible_1: Tensor,
    num_stored_1: Tensor,
    window: int | None,
    *,
    table: LaunchTable | None = None,
) -> Tensor:
    """Each canvas position sees its own row in both directions, and the prompt.

    Args:
        q_LHd: contiguous.
        store: the prompt's keys and values, then those of this pass from `num_stored` on.
        row_L: canvas of each position, int32.
        num_visible_1: prompt tokens, int32 on the device.
        num_stored_1: rows of the store before this pass's own, int32 on the device; more than `num_visible` where
            tokens that no query sees are stored between the two.
        window: sliding layers see the prompt's last `window - 1` tokens, whatever the canvas position; None sees all.
        table: how to launch; by default the device's.

    Returns:
        [L, H, d] in `q`'s dtype.
    """
    return _launch(q_LHd, store, row_L, None, num_visible_1, num_stored_1, window, table)


def causal(
    q_LHd: Tensor,
    store: KVStore,
    row_L: Tensor,
    position_L: Tensor,
    num_visible_1: Tensor,
    num_stored_1: Tensor,
    window: int | None,
    *,
    table: LaunchTable | None = None,
) -> Tensor:
    """Each token sees its own branch and the prompt up to its own position: a prefill is one branch.

    Args:
        q_LHd: contiguous.
        store: the stored tokens' keys and values at their positions, then the L of this pass.
        row_L: branch of each token, int32.
        position_L: int32; rises within a branch, and none is below `num_visible`.
        num_visible_1: stored tokens from this one on are not visible, int32 on the device.
        num_stored_1: stored tokens, int32 on the device.
        window: tokens a sliding layer sees by position, the query's own included; None sees all.
        table: how to launch; by default the device's.

    Returns:
        [L, H, d] in `q`'s dtype.
    """
    return _launch(q_LHd, store, row_L, position_L, num_visible_1, num_stored_1, window, table)


def _launch(
    q_LHd: Tensor,
    store: KVStore,
    row_L: Tensor,
    position_L: Tensor | None,
    num_visible_1: Tensor,
    num_stored_1: Tensor,
    window: int | None,
    table: LaunchTable | None,
) -> Tensor:
    num_tokens, num_heads, head_dim = q_LHd.shape
    if head_dim & (head_dim - 1) or head_dim > max(HEAD_SIZES):
        raise ValueError(f"{head_dim=} must be a power of two up to {max(HEAD_SIZES)}; use the reference operations")
    assert q_LHd.is_contiguous() and q_LHd.dtype is store.dtype and head_dim == store.head_dim
    num_shared = num_heads // store.num_kv
    out_LHd = q_LHd.new_empty(q_LHd.shape)
    size = min(size for size in HEAD_SIZES if head_dim <= size)
    table = table or for_device(q_LHd.device)
    entry = dict(table.of(f"attention.{size}"))
    num_programs = num_blocks(num_tokens * num_shared, entry["BLOCK_M"])
    num_splits = min(MOST_SPLITS, max(1, entry.pop("FILL") // (num_programs * store.num_kv)))
    acc, highest_SLH, total_SLH = out_LHd, None, None
    if num_splits > 1:
        acc = q_LHd.new_empty(num_splits, *q_LHd.shape, dtype=torch.float32)
        highest_SLH, total_SLH = (
            q_LHd.new_empty(num_splits, num_tokens, num_heads, dtype=torch.float32) for _ in range(2)
        )
    launch(
        attention_kernel, (num_programs, store.num_kv, num_splits),
        q_LHd, store.place_4, row_L, position_L, num_visible_1, num_stored_1, acc, highest_SLH, total_SLH,
        num_tokens, num_heads, EVERYTHING if window is None else window,
        HEAD=head_dim, SHARED=num_shared, CAUSAL=position_L is not None, SPLIT=num_splits > 1, **entry,
    )  # fmt: skip
    if num_splits > 1:
        num_queries = num_tokens * num_heads
        launch(
            join_splits_kernel, (num_queries,), acc, highest_SLH, total_SLH, out_LHd, num_queries, num_splits,
            HEAD=head_dim, **table.of("join_splits"),
        )  # fmt: skip
    return out_LHd
