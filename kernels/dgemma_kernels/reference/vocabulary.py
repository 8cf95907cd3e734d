"""The vocabulary tail in plain PyTorch, float32 inside; signatures of `vocabulary.py`.

Shape legend: N positions, V vocabulary, D hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.reference import plain
from dgemma_kernels.tensors.vocabulary_distribution import Banned, VocabularyDistribution


def distribution(
    logits_NV: Tensor, temperature_1: Tensor, levels_N: Tensor, cap: float, banned: Banned | None
) -> VocabularyDistribution:
    """See `vocabulary.distribution`."""
    capped_NV = plain.softcap(logits_NV, cap)
    if banned is not None:
        bans_NV = banned.sets_RV[banned.set_of_N.long().clamp(min=0)] & (banned.set_of_N >= 0)[:, None]
        capped_NV = capped_NV.masked_fill(bans_NV, -torch.inf)
    probs_NV = torch.softmax(capped_NV / temperature_1, dim=-1)
    cumulative_NV = probs_NV.cumsum(-1)
    levels_N1 = levels_N[:, None] * cumulative_NV[:, -1:]
    sampled_N = torch.searchsorted(cumulative_NV, levels_N1, right=True)[:, 0].clamp(max=logits_NV.shape[1] - 1)
    scores = VocabularyDistribution(
        probs_NV=logits_NV,
        best_N=capped_NV.argmax(-1).int(),
        sampled_N=sampled_N.int(),
        entropy_N=-torch.xlogy(probs_NV, probs_NV).sum(-1),
        confidence_N=torch.softmax(capped_NV, dim=-1).amax(-1),
    )
    logits_NV.copy_(probs_NV)
    return scores


def soft_embeddings(probs_NV: Tensor, embed_VD: Tensor, factor: float) -> Tensor:
    """Returns `probs @ embed * factor`."""
    return (probs_NV.float() @ embed_VD.float() * factor).to(embed_VD.dtype)
