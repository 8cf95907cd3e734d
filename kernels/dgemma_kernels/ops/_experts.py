"""The grouped matrix kernel: one tile of tokens of one expert times a block of that expert's output features."""

import triton
import triton.language as tl

from dgemma_kernels.ops._numbers import GROUP_SIZE, fp8_scale, gelu_tanh, narrow, product
from dgemma_kernels.ops._weights import add_group, load_rows, load_scale, load_weights, load_x


@triton.jit
def _scales_of(
    x_scale_ptr, scale_ptr, source, row_inside, feature, inside, group, num_features, num_outputs, num_inputs,
    FORMAT: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """Scales of a group: of fp8 rows, twice the same, or of the weights and of those of `up`."""
    if FORMAT == "fp8":
        place = source.to(tl.int64) * (num_inputs // GROUP_SIZE) + group
        x_scale = tl.load(x_scale_ptr + place, mask=row_inside, other=0.0)
        return x_scale, x_scale
    else:
        scale = load_scale(scale_ptr, feature, inside, group, num_features)
        scale_up = scale
        if GATED:
            scale_up = load_scale(scale_ptr, feature + num_outputs, inside, group, num_features)
        return scale, scale_up


@triton.jit
def _store(
    acc, acc_up, row_scale_ptr, out_ptr, out_scale_ptr, weights_ptr, expert, block, feature, inside, row, row_inside,
    assignment, num_features, num_outputs, num_blocks,
    GATED: tl.constexpr, OUT_FORMAT: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Stores one block of features of a tile."""
    if row_scale_ptr is not None:
        row_scale_ptr += expert * num_features + feature
        acc *= tl.load(row_scale_ptr, mask=inside, other=0.0)[:, None]
        if GATED:
            acc_up *= tl.load(row_scale_ptr + num_outputs, mask=inside, other=0.0)[:, None]
    if GATED:
        acc = gelu_tanh(acc) * acc_up
        target = row
    else:
        acc *= tl.load(weights_ptr + assignment, mask=row_inside, other=0.0)[None, :]
        target = assignment
    if OUT_FORMAT == "fp8_group":
        tl.static_assert(BLOCK_N == GROUP_SIZE, "a block of features must be one group")
        scale = fp8_scale(tl.max(tl.abs(acc), 0))
        tl.store(out_scale_ptr + target * num_blocks + block, scale, mask=row_inside)
        acc /= scale[None, :]
    out_place = target.to(tl.int64)[None, :] * num_outputs + feature[:, None]
    tl.store(out_ptr + out_place, narrow(acc, out_ptr.dtype.element_ty), mask=inside[:, None] & row_inside[None, :])


@triton.jit
def experts_kernel(
    x_ptr, x_scale_ptr, data_ptr, scale_ptr, row_scale_ptr, out_ptr, out_scale_ptr,
    assignment_ptr, offset_ptr, tile_expert_ptr, tile_start_ptr, weights_ptr,
    num_inputs, num_features, num_outputs, data_stride, scale_stride,
    NUM_SELECTED: tl.constexpr, FORMAT: tl.constexpr, GATED: tl.constexpr, OUT_FORMAT: tl.constexpr,
    MASKED: tl.constexpr, EVEN: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """Gated: `gelu(gate) * up` to sorted rows. Otherwise: times the routing weight, to the assignments' own rows.

    A program computes `EACH` blocks of features of its tile in one loop, so that weights of the next block are loaded
    while one is stored. With `AHEAD` the scales of a group are loaded before the previous group is multiplied.
    """
    num_blocks = tl.cdiv(num_outputs, BLOCK_N)
    num_parts = tl.cdiv(num_blocks, EACH)
    tile = tl.program_id(0) // num_parts
    expert = tl.load(tile_expert_ptr + tile)
    if expert < 0:
        return
    block = (tl.program_id(0) % num_parts) * EACH
    feature = block * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = tl.full([BLOCK_N], True, tl.int1) if EVEN else feature < num_outputs
    row = tl.load(tile_start_ptr + tile) + tl.arange(0, BLOCK_T)
    row_inside = row < tl.load(offset_ptr + expert + 1)
    assignment = tl.load(assignment_ptr + row, mask=row_inside, other=0)
    source = assignment // NUM_SELECTED if GATED else row
    x_start = source.to(tl.int64) * num_inputs
    data_ptr += expert.to(tl.int64) * data_stride
    if scale_ptr is not None:
        scale_ptr += expert.to(tl.int64) * scale_stride
    acc = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    acc_up = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    if AHEAD:
        tl.static_assert(FORMAT == "fp8" or FORMAT == "int8" or FORMAT == "int4", "format without scales to load ahead")
        ahead, ahead_up = _scales_of(
            x_scale_ptr, scale_ptr, source, row_inside, feature, inside, 0, num_features, num_outputs, num_inputs,
            FORMAT, GATED,
        )  # fmt: skip
    end = num_inputs
    if EACH > 1:
        num_turns = tl.cdiv(num_inputs, BLOCK_K)
        end = num_turns * BLOCK_K * tl.minimum(EACH, num_blocks - block)
        turn = -1
        block -= 1
    for walked in range(0, end, BLOCK_K):
        first = walked
        if EACH > 1:
            # Selected and not computed where a block is stored: loads must not wait for products.
            turn = tl.where(turn == num_turns - 1, 0, turn + 1)
            block = tl.where(turn == 0, block + 1, block)
            first = turn * BLOCK_K
            feature = block * BLOCK_N + tl.arange(0, BLOCK_N)
            inside = tl.full([BLOCK_N], True, tl.int1) if EVEN else feature < num_outputs
        if FORMAT == "plain":
            x = load_rows(x_ptr, x_start, row_inside, first, num_inputs, BLOCK_K, MASKED)
            weights = load_weights(data_ptr, feature, inside, first, num_inputs, BLOCK_K, MASKED)
            acc = product(weights, x, acc)
            if GATED:
                weights = load_weights(data_ptr, feature + num_outputs, inside, first, num_inputs, BLOCK_K, MASKED)
                acc_up = product(weights, x, acc_up)
        else:
            for step in tl.static_range(BLOCK_K // GROUP_SIZE):
                group = first // GROUP_SIZE + step
                x = load_x(x_ptr, x_start, row_inside, group, num_inputs, FORMAT, MASKED)
                if MASKED:
                    # Past the last group the activations are 0, and any weights will do.
                    group = tl.minimum(group, num_inputs // GROUP_SIZE - 1)
                x_scale, scale, scale_up = None, None, None
                if AHEAD:
                    if FORMAT == "fp8":
                        x_scale = ahead
                    else:
                        scale, scale_up = ahead, ahead_up
                    # After the last group comes the first one of the next block, or any.
                    is_last = group + 1 >= num_inputs // GROUP_SIZE
                    following = tl.where(is_last, 0, group + 1)
                    next_feature, next_inside = feature, inside
                    if EACH > 1:
                        next_block = tl.minimum(tl.where(is_last, block + 1, block), num_blocks - 1)
                        next_feature = next_block * BLOCK_N + tl.arange(0, BLOCK_N)
                        next_inside = inside if EVEN else next_feature < num_outputs
                    ahead, ahead_up = _scales_of(
                        x_scale_ptr, scale_ptr, source, row_inside, next_feature, next_inside, following, num_features,
                        num_outputs, num_inputs, FORMAT, GATED,
                    )  # fmt: skip
                elif FORMAT == "fp8":
                    x_place = source.to(tl.int64) * (num_inputs // GROUP_SIZE) + group
                    x_scale = tl.load(x_scale_ptr + x_place, mask=row_inside, other=0.0)
                acc = add_group(
                    acc, data_ptr, scale_ptr, feature, inside, group, num_features, num_inputs, x, x_scale, scale,
                    FORMAT,
                )  # fmt: skip
                if GATED:
                    acc_up = add_group(
                        acc_up, data_ptr, scale_ptr, feature + num_outputs, inside, group, num_features, num_inputs,
                        x, x_scale, scale_up, FORMAT,
                    )  # fmt: skip
        # Not one condition: the first is decided by the compiler, the second by the program.
        if EACH > 1:  # noqa: SIM102
            if turn == num_turns - 1:
                _store(
                    acc, acc_up, row_scale_ptr, out_ptr, out_scale_ptr, weights_ptr, expert, block, feature, inside,
                    row, row_inside, assignment, num_features, num_outputs, num_blocks, GATED, OUT_FORMAT, BLOCK_N,
                )  # fmt: skip
                acc = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
                acc_up = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    if EACH == 1:
        _store(
            acc, acc_up, row_scale_ptr, out_ptr, out_scale_ptr, weights_ptr, expert, block, feature, inside,
            row, row_inside, assignment, num_features, num_outputs, num_blocks, GATED, OUT_FORMAT, BLOCK_N,
        )  # fmt: skip


@triton.jit
def combine_kernel(parts_ptr, out_ptr, num_columns, NUM_PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums a token's parts in order."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < num_columns
    total = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(NUM_PARTS):
        part_ptr = parts_ptr + (row * NUM_PARTS + part) * num_columns
        total += tl.load(part_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * num_columns + column, narrow(total, out_ptr.dtype.element_ty), mask=inside)
