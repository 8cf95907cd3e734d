"""Row kernels: one program reads a row once and writes everything that is computed from it."""

import triton
import triton.language as tl

from dgemma_kernels.ops._kv_store import head_of_keys, head_of_values
from dgemma_kernels.ops._numbers import gelu_tanh, narrow, store_row


@triton.jit
def _normed(x, num_columns, eps):
    return x * tl.rsqrt(tl.sum(x * x, 0) / num_columns + eps)


@triton.jit
def _weighted(x, weight_ptr, column, inside):
    if weight_ptr is None:
        return x
    else:
        return x * tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def norm_kernel(
    x_ptr, residual_ptr, weight_ptr, parts_ptr, parts_weight_ptr, merged_weight_ptr, scalar_ptr, scalar_stride, y_ptr,
    out0_ptr, out1_ptr, out2_ptr, scale0_ptr, scale1_ptr, scale2_ptr, weight0_ptr, weight1_ptr, weight2_ptr,
    num_columns, eps, NUM_PARTS: tl.constexpr, NORM: tl.constexpr,
    FORMAT0: tl.constexpr, FORMAT1: tl.constexpr, FORMAT2: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row: optional residual and merge, then up to three norms of the result."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < num_columns
    start = row.to(tl.int64) * num_columns
    y = tl.load(x_ptr + start + column, mask=inside, other=0.0).to(tl.float32)
    if residual_ptr is not None:
        y = _weighted(_normed(y, num_columns, eps), weight_ptr, column, inside)
        if parts_ptr is not None:
            sparse = tl.zeros([BLOCK], tl.float32)
            for part in tl.static_range(NUM_PARTS):
                part_ptr = parts_ptr + start * NUM_PARTS + part * num_columns
                sparse += tl.load(part_ptr + column, mask=inside, other=0.0).to(tl.float32)
            y += _weighted(_normed(sparse, num_columns, eps), parts_weight_ptr, column, inside)
            y = _weighted(_normed(y, num_columns, eps), merged_weight_ptr, column, inside)
        y += tl.load(residual_ptr + start + column, mask=inside, other=0.0).to(tl.float32)
        if scalar_ptr is not None:
            y *= tl.load(scalar_ptr + row * scalar_stride).to(tl.float32)
        stored = narrow(y, y_ptr.dtype.element_ty)
        tl.store(y_ptr + start + column, stored, mask=inside)
        # Readers see what was stored, as if the norm were a kernel of its own.
        y = stored.to(tl.float32)
    if NORM:
        y = _normed(y, num_columns, eps)
    if FORMAT0 is not None:
        read = _weighted(y, weight0_ptr, column, inside)
        store_row(read, out0_ptr, scale0_ptr, row, column, num_columns, FORMAT0, BLOCK)
    if FORMAT1 is not None:
        read = _weighted(y, weight1_ptr, column, inside)
        store_row(read, out1_ptr, scale1_ptr, row, column, num_columns, FORMAT1, BLOCK)
    if FORMAT2 is not None:
        read = _weighted(y, weight2_ptr, column, inside)
        store_row(read, out2_ptr, scale2_ptr, row, column, num_columns, FORMAT2, BLOCK)


@triton.jit
def norm_rotary_kernel(
    heads_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, q_ptr, store_ptr, start_ptr,
    num_projected, num_heads, num_kv, eps, HEAD: tl.constexpr,
):  # fmt: skip
    """One head of one token, the last `num_kv` programs of a token being its values."""
    token = tl.program_id(0)
    head = tl.program_id(1)
    kv_head = (head - num_heads) % num_kv
    is_value = head >= num_heads + num_kv
    source = tl.where(is_value, num_projected - num_kv + kv_head, head)
    column = tl.arange(0, HEAD)
    partner = (column + HEAD // 2) % HEAD
    x_ptr = heads_ptr + (token * num_projected + source).to(tl.int64) * HEAD
    x = tl.load(x_ptr + column).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(x * x, 0) / HEAD + eps)
    x *= inverse
    place = (tl.load(start_ptr) + token).to(tl.int64) * HEAD
    element_ty = q_ptr.dtype.element_ty
    if is_value:
        v_ptr = head_of_values(store_ptr, kv_head, HEAD, element_ty)
        tl.store(v_ptr + place + column, narrow(x, element_ty))
    else:
        weight_ptr = q_weight_ptr
        if head >= num_heads:
            weight_ptr = k_weight_ptr
        other = tl.load(x_ptr + partner).to(tl.float32) * inverse * tl.load(weight_ptr + partner).to(tl.float32)
        other = tl.where(column < HEAD // 2, -other, other)
        cos = tl.load(cos_ptr + token * HEAD + column).to(tl.float32)
        sin = tl.load(sin_ptr + token * HEAD + column).to(tl.float32)
        turned = x * tl.load(weight_ptr + column).to(tl.float32) * cos + other * sin
        if head < num_heads:
            q_place = (token * num_heads + head).to(tl.int64) * HEAD
            tl.store(q_ptr + q_place + column, narrow(turned, element_ty))
        else:
            k_ptr = head_of_keys(store_ptr, kv_head, HEAD, element_ty)
            tl.store(k_ptr + place + column, narrow(turned, element_ty))


@triton.jit
def gated_gelu_kernel(x_ptr, out_ptr, scale_ptr, num_columns, FORMAT: tl.constexpr, BLOCK: tl.constexpr):
    """One row: gate first, then up."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < num_columns
    x_ptr += row.to(tl.int64) * 2 * num_columns
    gate = tl.load(x_ptr + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + num_columns + column, mask=inside, other=0.0).to(tl.float32)
    store_row(gelu_tanh(gate) * up, out_ptr, scale_ptr, row, column, num_columns, FORMAT, BLOCK)
