"""The attention kernel: query rows of one key-value head against the prompt's keys and the pass's own after them."""

import triton
import triton.language as tl

from dgemma_kernels.ops._kv_store import head_of_keys, head_of_values
from dgemma_kernels.ops._numbers import INTERPRETED, narrow, product


@triton.jit
def _share(start, end, SPLIT: tl.constexpr, BLOCK_S: tl.constexpr):
    """Returns where this program's share of some keys starts and ends, whole blocks of them."""
    if SPLIT:
        length = tl.cdiv(tl.cdiv(tl.maximum(end - start, 0), BLOCK_S), tl.num_programs(2)) * BLOCK_S
        own = start + tl.program_id(2) * length
        return own, tl.minimum(own + length, end)
    else:
        return start, end


@triton.jit
def _attend(
    highest, total, acc, q, own_row, position, start, end, k_ptr, v_ptr, row_ptr, position_ptr, num_visible,
    num_stored, first_seen, window, HEAD: tl.constexpr, CAUSAL: tl.constexpr, STORED: tl.constexpr,
    OWN: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Adds the keys of a range: visible stored ones (`STORED`), the pass's own (`OWN`), or both with hidden ones."""
    column = tl.arange(0, HEAD)
    for first in range(start, end, BLOCK_S):
        key = first + tl.arange(0, BLOCK_S)
        inside = key < end
        k_place = key[None, :] * HEAD + column[:, None]
        k = tl.load(k_ptr + k_place, mask=inside[None, :], other=0.0)
        scores = product(q, k, None)
        key_position = key
        if OWN:
            own = key >= num_stored
            key_row = tl.load(row_ptr + key - num_stored, mask=own & inside, other=-2)
            sees = key_row[None, :] == own_row[:, None]
            if STORED:
                sees = sees | ((key < num_visible) & ~own)[None, :]
            if CAUSAL:
                own_position = tl.load(position_ptr + key - num_stored, mask=own & inside, other=0)
                key_position = tl.where(own, own_position, key)
                sees = sees & (key_position[None, :] <= position[:, None])
        else:
            sees = inside[None, :]
        if CAUSAL:
            sees = sees & (key_position[None, :] > position[:, None] - window)
        elif OWN and STORED:
            sees = sees & (key >= first_seen)[None, :]
        scores = tl.where(sees, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        # A query without a visible key so far has no highest score; 0 keeps its exponentials 0.
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - shift[:, None])
        shrink = tl.exp(highest - shift)
        total = total * shrink + tl.sum(weights, 1)
        highest = higher
        v_place = key[:, None] * HEAD + column[None, :]
        v = tl.load(v_ptr + v_place, mask=inside[:, None], other=0.0)
        if not INTERPRETED:
            weights = weights.to(v.dtype)
        acc = product(weights, v, acc * shrink[:, None])
    return highest, total, acc


# Rows and positions of a canvas begin after those of its block, aligned or not by the block's length: specialised on
# that, the kernel would be compiled a second time while a request waits.
@triton.jit(do_not_specialize=["num_tokens"], do_not_specialize_on_alignment=["row_ptr", "position_ptr"])
def attention_kernel(
    q_ptr, store_ptr, row_ptr, position_ptr, num_visible_ptr, num_stored_ptr, out_ptr, highest_ptr, total_ptr,
    num_tokens, num_heads, window,
    HEAD: tl.constexpr, SHARED: tl.constexpr, CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_S: tl.constexpr,
    SPLIT: tl.constexpr, LOOPS: tl.constexpr,
):  # fmt: skip
    """`SHARED` query heads read one key-value head; a block holds the queries of all of them for some tokens.

    With `SPLIT` each program of axis 2 takes a share of the keys and leaves sums for `join_splits_kernel`. Of two
    `LOOPS` the first takes stored keys, which need no comparison of rows, and the second the pass's own.
    """
    kv_head = tl.program_id(1)
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    token = index // SHARED
    head = kv_head * SHARED + index % SHARED
    q_inside = token < num_tokens
    column = tl.arange(0, HEAD)
    # Offsets within a block and within a head fit 32 bits, which halves the registers that they take.
    first_token = tl.program_id(0) * BLOCK_M // SHARED
    q_ptr += first_token.to(tl.int64) * num_heads * HEAD
    out_ptr += first_token.to(tl.int64) * num_heads * HEAD
    q_place = ((token - first_token) * num_heads + head)[:, None] * HEAD + column[None, :]
    q = tl.load(q_ptr + q_place, mask=q_inside[:, None], other=0.0)
    own_row = tl.load(row_ptr + token, mask=q_inside, other=-1)
    num_visible, num_stored = tl.load(num_visible_ptr), tl.load(num_stored_ptr)
    end = num_stored + num_tokens
    position = own_row
    if CAUSAL:
        position = tl.load(position_ptr + token, mask=q_inside, other=2147483647)
        first_seen = tl.maximum(tl.min(position, 0) - window + 1, 0)
        end = tl.minimum(end, num_stored + (tl.program_id(0) * BLOCK_M + BLOCK_M - 1) // SHARED + 1)
    else:
        first_seen = tl.maximum(num_visible - window + 1, 0)
    k_ptr = head_of_keys(store_ptr, kv_head, HEAD, q_ptr.dtype.element_ty)
    v_ptr = head_of_values(store_ptr, kv_head, HEAD, q_ptr.dtype.element_ty)
    highest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD], tl.float32)
    if LOOPS == 1:
        # Own keys may directly follow hidden or unseen ones, so both are read as one range.
        own_start, own_end = _share(tl.minimum(first_seen, num_stored), end, SPLIT, BLOCK_S)
    else:
        stored_start, stored_end = _share(first_seen, num_visible, SPLIT, BLOCK_S)
        highest, total, acc = _attend(
            highest, total, acc, q, own_row, position, stored_start, stored_end, k_ptr, v_ptr, row_ptr, position_ptr,
            num_visible, num_stored, first_seen, window, HEAD, CAUSAL, True, False, BLOCK_S,
        )  # fmt: skip
        own_start, own_end = _share(num_stored, end, SPLIT, BLOCK_S)
    highest, total, acc = _attend(
        highest, total, acc, q, own_row, position, own_start, own_end, k_ptr, v_ptr, row_ptr, position_ptr,
        num_visible, num_stored, first_seen, window, HEAD, CAUSAL, LOOPS == 1, True, BLOCK_S,
    )  # fmt: skip
    if SPLIT:
        before = tl.program_id(2).to(tl.int64) * num_tokens * num_heads
        out_ptr += before * HEAD
        tl.store(highest_ptr + before + token * num_heads + head, highest, mask=q_inside)
        tl.store(total_ptr + before + token * num_heads + head, total, mask=q_inside)
    else:
        acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out_ptr + q_place, narrow(acc, out_ptr.dtype.element_ty), mask=q_inside[:, None])


@triton.jit(do_not_specialize=["num_queries", "num_splits"])
def join_splits_kernel(acc_ptr, highest_ptr, total_ptr, out_ptr, num_queries, num_splits, HEAD: tl.constexpr):
    """Adds what the programs of one head of one token have summed, each relative to its own highest score."""
    query = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, HEAD)
    highest = tl.full([1], float("-inf"), tl.float32)
    for split in range(num_splits):
        highest = tl.maximum(highest, tl.load(highest_ptr + split * num_queries + query))
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    total, acc = tl.zeros([1], tl.float32), tl.zeros([HEAD], tl.float32)
    for split in range(num_splits):
        place = split * num_queries + query
        shrink = tl.exp(tl.load(highest_ptr + place) - shift)
        total += tl.load(total_ptr + place) * shrink
        acc += tl.load(acc_ptr + place * HEAD + column) * shrink
    tl.store(
        out_ptr + query * HEAD + column, narrow(acc / tl.where(total == 0.0, 1.0, total), out_ptr.dtype.element_ty)
    )
