"""Losses of a model on held-out holes that are the same at every evaluation, apart by what is predicted.

The model reads blocks and documents with the same weights, as the engine does once an adapter is merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import torch

from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.tools.adaptation.batches import SampleBatch
from dgemma_engine.tools.adaptation.config import EvaluationConfig
from dgemma_engine.tools.adaptation.parallel_pass import block_states, encode_texts, target_losses
from dgemma_engine.tools.adaptation.samples import Block, Sample, SampleDrawer

_SEED = "held out"
_LATER = 3
Losses = dict[str, float]
"""Nats a token: `middle`, `end`, each kind of hole and language (of the middle), `token 0` to `token 2`, `later`."""


def held_out_samples(drawer: SampleDrawer, config: EvaluationConfig) -> list[Sample]:
    """Returns the holes that every evaluation judges.

    Args:
        drawer: of held-out files.
        config: how many.
    """
    random = Random(_SEED)
    return [drawer.draw(random, num_holes=config.holes) for _ in range(config.documents)]


@torch.no_grad()
def held_out_losses(model: LlamaModel, samples: Sequence[Sample], batch_of: Callable[[Sample], SampleBatch]) -> Losses:
    """Returns means over the targets of all samples.

    Args:
        model: judged as it is.
        samples: held-out holes.
        batch_of: puts one on the model's device.
    """
    sums, counts = dict[str, float](), dict[str, int]()
    for sample in samples:
        batch = batch_of(sample)
        losses = target_losses(model, block_states(model, batch, encode_texts(model, batch)), batch).tolist()
        places = (batch.weight_RN > 0).nonzero().tolist()
        for loss, (row, place) in zip(losses, places, strict=True):
            block = batch.blocks[row]
            assert block is not None, "an empty row has no targets"
            for name in _names(block, place, sample.lang):
                sums[name] = sums.get(name, 0.0) + loss
                counts[name] = counts.get(name, 0) + 1
    return {name: round(sums[name] / counts[name], 4) for name in sorted(sums)}


def _names(block: Block, place: int, lang: str) -> tuple[str, ...]:
    """Returns the means that a target is a part of; one of the prefix is a part of none."""
    index = place - block.num_back
    if index < 0:
        return ()
    if place == len(block.target_ids) - 1:
        return ("end",)
    return ("middle", block.kind, lang, f"token {index}" if index < _LATER else "later")
