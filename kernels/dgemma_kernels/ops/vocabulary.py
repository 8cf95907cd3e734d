"""The vocabulary tail as Triton kernels: logits are read once for statistics and once to become probabilities.

Nothing of size N x V is ever float32 in memory. Signatures of `reference/vocabulary.py`. Shape legend: N positions,
V vocabulary, D hidden, C blocks of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, num_blocks, power_of_two
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._vocabulary import finish_kernel, soft_embeddings_kernel, statistics_kernel
from dgemma_kernels.ops.linear import sum_splits
from dgemma_kernels.tensors.vocabulary_distribution import Banned, VocabularyDistribution


def distribution(
    logits_NV: Tensor,
    temperature_1: Tensor,
    levels_N: Tensor,
    cap: float,
    banned: Banned | None,
    *,
    table: LaunchTable | None = None,
) -> VocabularyDistribution:
    """Softcap, temperature, probabilities, best token, entropy, confidence, and one draw per position.

    A draw inverts the distribution function at the position's level, in float32, from the logits as they are stored;
    a token of probability 0 is never drawn.

    Args:
        logits_NV: output of the output matrix, contiguous; overwritten with the probabilities.
        temperature_1: > 0, float32 on the device.
        levels_N: uniform numbers, 0 up to but not including 1, float32.
        cap: of the softcap.
        banned: tokens that cannot appear.
        table: how to launch; by default the device's.
    """
    assert logits_NV.is_contiguous()
    num_positions, vocab_size = logits_NV.shape
    entry = (table or for_device(logits_NV.device)).of("vocabulary")
    blocks = num_blocks(vocab_size, entry["BLOCK"])
    highest_NC, total_NC, moment_NC, sure_NC = (
        logits_NV.new_empty(num_positions, blocks, dtype=torch.float32) for _ in range(4)
    )
    block_best_NC = logits_NV.new_empty(num_positions, blocks, dtype=torch.int32)
    partial = (highest_NC, block_best_NC, total_NC, moment_NC, sure_NC)
    sets = (banned.sets_RV.view(torch.uint8), banned.set_of_N) if banned is not None else (None, None)
    source, grid = (logits_NV, *sets, temperature_1), (num_positions, blocks)
    launch(statistics_kernel, grid, *source, *partial, cap, vocab_size, **entry)
    best_N, sampled_N = (logits_NV.new_empty(num_positions, dtype=torch.int32) for _ in range(2))
    entropy_N, confidence_N = (logits_NV.new_empty(num_positions, dtype=torch.float32) for _ in range(2))
    launch(
        finish_kernel, grid, *source, levels_N, *partial, best_N, sampled_N, entropy_N, confidence_N, cap, vocab_size,
        NUM_SLOTS=power_of_two(blocks), **entry,
    )  # fmt: skip
    return VocabularyDistribution(
        probs_NV=logits_NV, best_N=best_N, sampled_N=sampled_N, entropy_N=entropy_N, confidence_N=confidence_N
    )


def soft_embeddings(probs_NV: Tensor, embed_VD: Tensor, factor: float, *, table: LaunchTable | None = None) -> Tensor:
    """Returns `probs @ embed * factor`, [N, D] in the embedding's dtype; shares of the vocabulary are summed in order.

    Args:
        probs_NV: in the embedding's dtype, contiguous.
        embed_VD: contiguous.
        factor: scale of the embeddings.
        table: how to launch; by default the device's.
    """
    assert probs_NV.is_contiguous() and embed_VD.is_contiguous() and probs_NV.dtype == embed_VD.dtype
    (num_positions, vocab_size), size = probs_NV.shape, embed_VD.shape[1]
    table = table or for_device(probs_NV.device)
    entry = dict(table.of("soft_embeddings"))
    num_splits = entry.pop("NUM_SPLITS")
    share = num_blocks(num_blocks(vocab_size, entry["BLOCK_V"]), num_splits) * entry["BLOCK_V"]
    partial = embed_VD.new_empty(num_splits, num_positions, size, dtype=torch.float32)
    blocks = num_blocks(num_positions, entry["BLOCK_N"]) * num_blocks(size, entry["BLOCK_D"])
    shape = (num_positions, vocab_size, size, share)
    launch(soft_embeddings_kernel, (blocks, num_splits), probs_NV, embed_VD, partial, *shape, **entry)
    return sum_splits(partial, embed_VD.new_empty(num_positions, size), factor, table=table)
