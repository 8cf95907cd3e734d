"""Attention of several rows over one prompt as a Triton kernel: canvases in both directions, or branches causally.

Keys and values of the pass stand in the store behind the prompt's (`rows.norm_rotary` puts them there), and the
prompt's length is read on the device, so that one captured graph serves prompts of any length. The scale is 1.0.
Signatures of `reference/attention.py`. Shape legend: L tokens of the pass, all rows behind one another; H query heads,
G key-value heads, d head size, S stored positions.
"""

from __future__ import annotations

from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, num_blocks
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._attention import attention_kernel

EVERYTHING = 2**30
HEAD_SIZES = (256, 512)


def canvas(
    q_LHd: Tensor,
    k_store_GSd: Tensor,
    v_store_GSd: Tensor,
    row_L: Tensor,
    num_stored_1: Tensor,
    window: int | None,
    *,
    table: LaunchTable | None = None,
) -> Tensor:
    """Each canvas position sees its own row in both directions, and the prompt.

    Args:
        q_LHd: contiguous.
        k_store_GSd: contiguous: the prompt's keys, then the L of this pass.
        v_store_GSd: likewise.
        row_L: canvas of each position, int32.
        num_stored_1: prompt tokens, int32 on the device.
        window: sliding layers see the prompt's last `window - 1` tokens, whatever the canvas position; None sees all.
        table: how to launch; by default the device's.

    Returns:
        [L, H, d] in `q`'s dtype.
    """
    return _launch(q_LHd, k_store_GSd, v_store_GSd, row_L, None, num_stored_1, num_stored_1, window, table)


def causal(
    q_LHd: Tensor,
    k_store_GSd: Tensor,
    v_store_GSd: Tensor,
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
        k_store_GSd: contiguous: the stored tokens' keys at their positions, then the L of this pass.
        v_store_GSd: likewise.
        row_L: branch of each token, int32.
        position_L: int32; rises within a branch, and none is below `num_visible`.
        num_visible_1: stored tokens from this one on are seen by nobody, int32 on the device.
        num_stored_1: stored tokens, int32 on the device.
        window: tokens a sliding layer sees by position, the query's own included; None sees all.
        table: how to launch; by default the device's.

    Returns:
        [L, H, d] in `q`'s dtype.
    """
    return _launch(q_LHd, k_store_GSd, v_store_GSd, row_L, position_L, num_visible_1, num_stored_1, window, table)


def _launch(
    q_LHd: Tensor,
    k_store_GSd: Tensor,
    v_store_GSd: Tensor,
    row_L: Tensor,
    position_L: Tensor | None,
    num_visible_1: Tensor,
    num_stored_1: Tensor,
    window: int | None,
    table: LaunchTable | None,
) -> Tensor:
    num_tokens, num_heads, head_dim = q_LHd.shape
    num_kv, capacity, _ = k_store_GSd.shape
    if head_dim & (head_dim - 1) or head_dim > max(HEAD_SIZES):
        raise ValueError(f"{head_dim=} must be a power of two up to {max(HEAD_SIZES)}; use the reference operations")
    assert q_LHd.is_contiguous() and k_store_GSd.is_contiguous() and v_store_GSd.is_contiguous()
    num_shared = num_heads // num_kv
    out_LHd = q_LHd.new_empty(q_LHd.shape)
    size = min(size for size in HEAD_SIZES if head_dim <= size)
    entry = (table or for_device(q_LHd.device)).of(f"attention.{size}")
    launch(
        attention_kernel, (num_blocks(num_tokens * num_shared, entry["BLOCK_M"]), num_kv),
        q_LHd, k_store_GSd, v_store_GSd, row_L, position_L, num_visible_1, num_stored_1, out_LHd,
        num_tokens, num_heads, capacity, EVERYTHING if window is None else window,
        HEAD=head_dim, SHARED=num_shared, CAUSAL=position_L is not None, **entry,
    )  # fmt: skip
    return out_LHd
