"""Losses of a model on held-out holes that are the same at every evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.training.data.corruption import noise_levels
from dgemma_engine.tools.training.optimization.losses import TokenBatch, infilling_losses
from dgemma_engine.tools.training.optimization.vocabulary import Vocabulary

_SEED = 1


@torch.no_grad()
def held_out_losses(
    model: DiffusionGemma, batches: Sequence[TokenBatch], *, num_canvases: int, vocabulary: Vocabulary
) -> dict[str, float]:
    """Returns means over the batches: `slot`, `slot_full_noise` and `causal`, in nats.

    Args:
        model: judged as it is.
        batches: held-out holes.
        num_canvases: noise draws per hole.
        vocabulary: as in training.
    """
    sums = {"slot": 0.0, "slot_full_noise": 0.0, "causal": 0.0}
    generator = torch.Generator(model.device).manual_seed(_SEED)
    for batch in batches:
        num_rows = batch.slot_BS.shape[0]
        levels_BR = noise_levels(num_rows, num_canvases, generator)
        mixed = infilling_losses(
            model, batch, levels_BR=levels_BR, num_judgements=2, generator=generator, vocabulary=vocabulary
        )
        levels_BR = torch.ones(num_rows, 1, device=model.device)
        first = infilling_losses(
            model, batch, levels_BR=levels_BR, num_judgements=1, generator=generator, vocabulary=vocabulary
        )
        sums["slot"] += mixed.slot.item()
        sums["causal"] += mixed.causal.item()
        sums["slot_full_noise"] += first.slot.item()
    return {name: total / len(batches) for name, total in sums.items()}
