"""Kernels of the vocabulary tail: statistics in one pass, then everything that needs them in a second."""

import triton
import triton.language as tl

from dgemma_kernels.ops._numbers import capped, narrow, product

NOWHERE = tl.constexpr(2147483647)


@triton.jit
def _scaled(logits_ptr, sets_ptr, set_of_ptr, temperature, cap, row, token, vocab_size):
    """Softcapped logits of a block divided by the temperature, float32; -inf where banned or past the end."""
    inside = token < vocab_size
    logits = tl.load(logits_ptr + row.to(tl.int64) * vocab_size + token, mask=inside, other=0.0).to(tl.float32)
    allowed = inside
    if sets_ptr is not None:
        which = tl.load(set_of_ptr + row)
        place = sets_ptr + which.to(tl.int64) * vocab_size + token
        allowed = allowed & (tl.load(place, mask=inside & (which >= 0), other=0) == 0)
    return tl.where(allowed, capped(logits, cap) / temperature, float("-inf"))


@triton.jit
def statistics_kernel(
    logits_ptr, sets_ptr, set_of_ptr, temperature_ptr, highest_ptr, best_ptr, total_ptr, moment_ptr, sure_ptr,
    cap, vocab_size, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one position: highest scaled logit, where it is, and sums relative to it."""
    row, block = tl.program_id(0), tl.program_id(1)
    temperature = tl.load(temperature_ptr)
    token = block * BLOCK + tl.arange(0, BLOCK)
    scaled = _scaled(logits_ptr, sets_ptr, set_of_ptr, temperature, cap, row, token, vocab_size)
    highest = tl.max(scaled, 0)
    below = scaled - tl.where(highest == float("-inf"), 0.0, highest)
    weight = tl.exp(below)
    place = row * tl.num_programs(1) + block
    tl.store(highest_ptr + place, highest)
    tl.store(best_ptr + place, tl.min(tl.where(scaled == highest, token, NOWHERE), 0))
    tl.store(total_ptr + place, tl.sum(weight, 0))
    tl.store(moment_ptr + place, tl.sum(tl.where(weight > 0.0, weight * below, 0.0), 0))
    tl.store(sure_ptr + place, tl.sum(tl.exp(below * temperature), 0))


@triton.jit
def finish_kernel(
    logits_ptr, sets_ptr, set_of_ptr, temperature_ptr, level_ptr,
    highest_ptr, block_best_ptr, total_ptr, moment_ptr, sure_ptr,
    best_ptr, sampled_ptr, entropy_ptr, confidence_ptr, cap, vocab_size,
    NUM_SLOTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one position again: probabilities replace logits; the first block adds statistics, one the draw."""
    row, own = tl.program_id(0), tl.program_id(1)
    num_blocks = tl.num_programs(1)
    temperature = tl.load(temperature_ptr)
    block = tl.arange(0, NUM_SLOTS)
    inside = block < num_blocks
    place = row * num_blocks + block
    highests = tl.load(highest_ptr + place, mask=inside, other=float("-inf"))
    highest = tl.max(highests, 0)
    below = tl.where(highests == float("-inf"), -1e30, highests - highest)
    totals = tl.load(total_ptr + place, mask=inside, other=0.0)
    masses = totals * tl.exp(below)
    mass = tl.sum(masses, 0)
    if own == 0:
        best = tl.load(block_best_ptr + place, mask=inside, other=NOWHERE)
        tl.store(best_ptr + row, tl.min(tl.where(highests == highest, best, NOWHERE), 0))
        moments = tl.load(moment_ptr + place, mask=inside, other=0.0) + totals * below
        expected = tl.sum(tl.where(masses > 0.0, moments * tl.exp(below), 0.0), 0) / mass
        tl.store(entropy_ptr + row, tl.maximum(tl.log(mass) - expected, 0.0))
        sure = tl.load(sure_ptr + place, mask=inside, other=0.0) * tl.exp(below * temperature)
        tl.store(confidence_ptr + row, 1.0 / tl.sum(sure, 0))

    token = own * BLOCK + tl.arange(0, BLOCK)
    scaled = _scaled(logits_ptr, sets_ptr, set_of_ptr, temperature, cap, row, token, vocab_size)
    weights = tl.exp(scaled - highest)
    probs = narrow(weights / mass, logits_ptr.dtype.element_ty)
    tl.store(logits_ptr + row.to(tl.int64) * vocab_size + token, probs, mask=token < vocab_size)

    # The block whose share of the distribution function holds the level, or for rounding the last one that has any.
    level = tl.load(level_ptr + row) * mass
    reached = (tl.cumsum(masses, 0) > level) & (masses > 0.0)
    last = tl.max(tl.where(masses > 0.0, block, -1), 0)
    chosen = tl.minimum(tl.min(tl.where(reached, block, NOWHERE), 0), last)
    if own == chosen:
        level -= tl.sum(tl.where(block < chosen, masses, 0.0), 0)
        passed = (tl.cumsum(weights, 0) > level) & (weights > 0.0)
        final = tl.max(tl.where(weights > 0.0, token, -1), 0)
        tl.store(sampled_ptr + row, tl.minimum(tl.min(tl.where(passed, token, NOWHERE), 0), final))


@triton.jit(do_not_specialize=["num_rows"])
def soft_embeddings_kernel(
    probs_ptr, embed_ptr, partial_ptr, num_rows, vocab_size, size, share,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Some positions, some features, one share of the vocabulary."""
    num_row_blocks = tl.cdiv(num_rows, BLOCK_N)
    row = (tl.program_id(0) % num_row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = (tl.program_id(0) // num_row_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    split = tl.program_id(1)
    row_inside, column_inside = row < num_rows, column < size
    start = split * share
    end = tl.minimum(start + share, vocab_size)
    acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first in range(start, end, BLOCK_V):
        token = first + tl.arange(0, BLOCK_V)
        inside = token < end
        probs_place = row.to(tl.int64)[:, None] * vocab_size + token[None, :]
        probs = tl.load(probs_ptr + probs_place, mask=row_inside[:, None] & inside[None, :], other=0.0)
        embed_place = token.to(tl.int64)[:, None] * size + column[None, :]
        embed = tl.load(embed_ptr + embed_place, mask=inside[:, None] & column_inside[None, :], other=0.0)
        acc = product(probs, embed, acc)
    place = (split * num_rows + row).to(tl.int64)[:, None] * size + column[None, :]
    tl.store(partial_ptr + place, acc, mask=row_inside[:, None] & column_inside[None, :])
