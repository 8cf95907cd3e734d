"""The routing kernel: scores, top-k and weights in every program, the sort by expert in the one that ends last."""

import triton
import triton.language as tl

from dgemma_kernels.ops._numbers import product

TAKEN = tl.constexpr(-2147483648)
NOT_A_NUMBER = tl.constexpr(-2147483647)
SORT_BLOCK = tl.constexpr(1024)
TILE_BLOCK = tl.constexpr(64)


@triton.jit
def _sortable(scores, inside):
    """Integers in the order of float32 scores; NaN comes before all numbers."""
    bits = scores.to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    key = tl.where(scores == scores, key, NOT_A_NUMBER)
    return tl.where(inside, key, TAKEN)


@triton.jit
def _sort(
    indices_ptr, rank_ptr, before_ptr, assignment_ptr, offset_ptr, tile_expert_ptr, tile_start_ptr,
    num_blocks, num_assignments, num_experts, num_tiles, tile_rows,
    NUM_SELECTED: tl.constexpr, NUM_SLOTS: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """Turns counts per block of tokens into offsets, and offsets into tiles; the result is the same in any program."""
    expert = tl.arange(0, NUM_SLOTS)
    block = tl.arange(0, 16)
    count = tl.zeros([NUM_SLOTS], tl.int32)
    for first in range(0, num_blocks, 16):
        place = (first + block)[:, None] * NUM_SLOTS + expert[None, :]
        inside = ((first + block) < num_blocks)[:, None]
        here = tl.load(before_ptr + place, mask=inside, other=0, cache_modifier=".cg")
        tl.store(before_ptr + place, tl.cumsum(here, 0) - here + count[None, :], mask=inside)
        count += tl.sum(here, 0)
    end = tl.cumsum(count, 0)
    tl.store(offset_ptr + 1 + expert, end, mask=expert < num_experts)
    tl.store(offset_ptr, 0)
    tl.debug_barrier()
    for first in range(0, num_assignments, SORT_BLOCK):
        assignment = first + tl.arange(0, SORT_BLOCK)
        inside = assignment < num_assignments
        chosen = tl.load(indices_ptr + assignment, mask=inside, other=0, cache_modifier=".cg")
        earlier = assignment // NUM_SELECTED // BLOCK_ROWS * NUM_SLOTS + chosen
        place = tl.load(offset_ptr + chosen, mask=inside, other=0)
        place += tl.load(before_ptr + earlier, mask=inside, other=0)
        place += tl.load(rank_ptr + assignment, mask=inside, other=0, cache_modifier=".cg")
        tl.store(assignment_ptr + place, assignment, mask=inside)
    tiles = (count + tile_rows - 1) // tile_rows
    tile_end = tl.cumsum(tiles, 0)
    for first in range(0, num_tiles, TILE_BLOCK):
        tile = first + tl.arange(0, TILE_BLOCK)
        owner = tl.sum((tile_end[None, :] <= tile[:, None]).to(tl.int32), 1)
        is_owner = owner[:, None] == expert[None, :]
        row_start = tl.sum(tl.where(is_owner, (end - count)[None, :], 0), 1)
        tile_start = tl.sum(tl.where(is_owner, (tile_end - tiles)[None, :], 0), 1)
        used = owner < NUM_SLOTS
        tl.store(tile_expert_ptr + tile, tl.where(used, owner, -1), mask=tile < num_tiles)
        start = tl.where(used, row_start + (tile - tile_start) * tile_rows, 0)
        tl.store(tile_start_ptr + tile, start, mask=tile < num_tiles)


@triton.jit(do_not_specialize=["num_rows", "num_tiles"])
def route_kernel(
    x_ptr, router_ptr, scale_ptr, weights_ptr, indices_ptr, rank_ptr, before_ptr, arrivals_ptr, assignment_ptr,
    offset_ptr, tile_expert_ptr, tile_start_ptr, num_rows, num_columns, num_experts, num_tiles, tile_rows,
    NUM_SELECTED: tl.constexpr, NUM_CHOICES: tl.constexpr, NUM_SLOTS: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A block of tokens; `NUM_CHOICES` and `NUM_SLOTS` are experts per token and experts, as powers of two."""
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    expert = tl.arange(0, NUM_SLOTS)
    row_inside, expert_inside = row < num_rows, expert < num_experts
    scores = tl.zeros([BLOCK_ROWS, NUM_SLOTS], tl.float32)
    for first in range(0, num_columns, BLOCK_K):
        column = first + tl.arange(0, BLOCK_K)
        inside = column < num_columns
        x_place = row[:, None].to(tl.int64) * num_columns + column[None, :]
        x = tl.load(x_ptr + x_place, mask=row_inside[:, None] & inside[None, :], other=0.0)
        router_place = expert[None, :] * num_columns + column[:, None]
        router = tl.load(router_ptr + router_place, mask=expert_inside[None, :] & inside[:, None], other=0.0)
        scores = product(x, router, scores)
    # One NaN in a row makes all of its weights NaN, as in a softmax.
    poison = tl.sum(tl.where(expert_inside[None, :], scores * 0.0, 0.0), 1)
    key = _sortable(scores, expert_inside[None, :])
    choice = tl.arange(0, NUM_CHOICES)
    chosen = tl.zeros([BLOCK_ROWS, NUM_CHOICES], tl.int32)
    chosen_score = tl.full([BLOCK_ROWS, NUM_CHOICES], float("-inf"), tl.float32)
    for k in tl.static_range(NUM_SELECTED):
        best = tl.argmax(key, 1, tie_break_left=True).to(tl.int32)
        is_best = expert[None, :] == best[:, None]
        score = tl.sum(tl.where(is_best, scores, 0.0), 1)
        chosen = tl.where(choice[None, :] == k, best[:, None], chosen)
        chosen_score = tl.where(choice[None, :] == k, score[:, None], chosen_score)
        key = tl.where(is_best, TAKEN, key)
    exponential = tl.exp(chosen_score - tl.max(chosen_score, 1)[:, None])
    weight = exponential / tl.sum(exponential, 1)[:, None] + poison[:, None]
    is_choice = (choice < NUM_SELECTED)[None, :] & row_inside[:, None]
    weight *= tl.load(scale_ptr + chosen, mask=is_choice, other=0.0).to(tl.float32)
    place = row[:, None] * NUM_SELECTED + choice[None, :]
    tl.store(weights_ptr + place, weight, mask=is_choice)
    tl.store(indices_ptr + place, chosen, mask=is_choice)

    taken = ((key == TAKEN) & expert_inside[None, :] & row_inside[:, None]).to(tl.int32)
    earlier = tl.cumsum(taken, 0) - taken
    for k in tl.static_range(NUM_SELECTED):
        own = tl.sum(tl.where(choice[None, :] == k, chosen, 0), 1)
        rank = tl.sum(tl.where(expert[None, :] == own[:, None], earlier, 0), 1)
        tl.store(rank_ptr + row * NUM_SELECTED + k, rank, mask=row_inside)
    tl.store(before_ptr + block * NUM_SLOTS + expert, tl.sum(taken, 0))

    # Everything above must be visible to all before this block counts as arrived.
    tl.debug_barrier()
    num_blocks = tl.num_programs(0)
    if tl.atomic_add(arrivals_ptr, 1, sem="acq_rel") == num_blocks - 1:
        tl.debug_barrier()
        _sort(
            indices_ptr, rank_ptr, before_ptr, assignment_ptr, offset_ptr, tile_expert_ptr, tile_start_ptr,
            num_blocks, num_rows * NUM_SELECTED, num_experts, num_tiles, tile_rows,
            NUM_SELECTED, NUM_SLOTS, BLOCK_ROWS,
        )  # fmt: skip
        tl.store(arrivals_ptr, 0)
