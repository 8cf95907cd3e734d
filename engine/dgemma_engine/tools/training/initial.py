"""Starting weights for a model trained from scratch."""

from __future__ import annotations

import torch

from dgemma_engine.model.transformer import DiffusionGemma


@torch.no_grad()
def initialise(model: DiffusionGemma, generator: torch.Generator) -> None:
    """Sets all weights, in place.

    Matrices are normal with the standard deviation that keeps a vector's length. Queries and keys are normalised and
    attention has scale 1, so their norms start at head size ** -1/4 each: with 1 the first softmax would be one-hot.
    The norms after each branch start at 1 / sqrt(branches): every branch would otherwise add a full-size vector.

    Args:
        model: its weights.
        generator: random draws.
    """
    hidden_size = model.config.hidden_size
    model.reset_parameters(generator, std=hidden_size**-0.5)
    num_branches = 2 * len(model.config.layer_kinds)
    for name, parameter in model.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.fill_(parameter.shape[0] ** -0.25)
        elif name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            parameter.fill_(num_branches**-0.5)
