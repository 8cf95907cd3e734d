"""The dense matrix kernel: a block of output features times a block of tokens, weights as the left operand."""

import triton
import triton.language as tl

from dgemma_kernels.ops._numbers import GROUP_SIZE, INTERPRETED, narrow, product
from dgemma_kernels.ops._weights import add_group, load_rows, load_scale, load_weights, load_x


@triton.jit(do_not_specialize=["num_rows"])
def linear_kernel(
    x_ptr, x_scale_ptr, data_ptr, scale_ptr, row_scale_ptr, out_ptr, partial_ptr, num_rows, num_inputs, num_outputs,
    share, FORMAT: tl.constexpr, MASKED: tl.constexpr, EVEN: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Programs that share weights are neighbours; with `partial_ptr`, each program of axis 1 adds `share` inputs.

    With `AHEAD` the scales of a group are loaded before the previous group is multiplied.
    """
    num_row_blocks = tl.cdiv(num_rows, BLOCK_T)
    feature = (tl.program_id(0) // num_row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = (tl.program_id(0) % num_row_blocks) * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = tl.full([BLOCK_N], True, tl.int1) if EVEN else feature < num_outputs
    row_inside = row < num_rows
    row_start = row.to(tl.int64) * num_inputs
    start, end = 0, num_inputs
    if partial_ptr is not None:
        start = tl.program_id(1) * share
        end = tl.minimum(start + share, num_inputs)
    acc = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    if AHEAD:
        tl.static_assert(FORMAT == "int8" or FORMAT == "int4", "other formats have no scales of groups of 64")
        ahead = load_scale(scale_ptr, feature, inside, start // GROUP_SIZE, num_outputs)
    for first in range(start, end, BLOCK_K):
        if FORMAT == "plain" or FORMAT == "fp8":
            x = load_rows(x_ptr, row_start, row_inside, first, num_inputs, BLOCK_K, MASKED)
            weights = load_weights(data_ptr, feature, inside, first, num_inputs, BLOCK_K, MASKED)
            if FORMAT == "plain" or INTERPRETED:
                acc = product(weights, x, acc)
            else:
                acc = tl.dot(weights, x, acc, max_num_imprecise_acc=BLOCK_K)
        else:
            for step in tl.static_range(BLOCK_K // GROUP_SIZE):
                group = first // GROUP_SIZE + step
                x = load_x(x_ptr, row_start, row_inside, group, num_inputs, FORMAT, MASKED)
                if MASKED:
                    # Past the last group the activations are 0, and any weights will do.
                    group = tl.minimum(group, num_inputs // GROUP_SIZE - 1)
                scale = None
                if AHEAD:
                    scale = ahead
                    following = tl.minimum(group + 1, num_inputs // GROUP_SIZE - 1)
                    ahead = load_scale(scale_ptr, feature, inside, following, num_outputs)
                acc = add_group(
                    acc, data_ptr, scale_ptr, feature, inside, group, num_outputs, num_inputs, x, None, scale, FORMAT
                )
    if row_scale_ptr is not None:
        acc *= tl.load(row_scale_ptr + feature, mask=inside, other=0.0)[:, None]
    if x_scale_ptr is not None:
        acc *= tl.load(x_scale_ptr + row, mask=row_inside, other=0.0)[None, :]
    place = row.to(tl.int64)[None, :] * num_outputs + feature[:, None]
    both_inside = inside[:, None] & row_inside[None, :]
    if partial_ptr is not None:
        partial_ptr += tl.program_id(1).to(tl.int64) * num_rows * num_outputs
        tl.store(partial_ptr + place, acc, mask=both_inside)
    else:
        tl.store(out_ptr + place, narrow(acc, out_ptr.dtype.element_ty), mask=both_inside)


@triton.jit
def sum_splits_kernel(partial_ptr, out_ptr, num_elements, factor, NUM_SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums the shares in order."""
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < num_elements
    total = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(NUM_SPLITS):
        total += tl.load(partial_ptr + split * num_elements + element, mask=inside, other=0.0)
    tl.store(out_ptr + element, narrow(total * factor, out_ptr.dtype.element_ty), mask=inside)
