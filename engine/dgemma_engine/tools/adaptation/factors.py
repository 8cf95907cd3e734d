"""The factors of an adapter while it is trained: float32 masters by name, the terms a model reads, and their gradients.

Shape legend: R rank, I inputs, O outputs of a projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dgemma_engine.families.llama.adaptation import PROJECTIONS, layer_terms
from dgemma_engine.families.llama.layers import LayerTerms, LowRank
from dgemma_engine.families.llama.model import LlamaModel

Factors = dict[str, Tensor]
"""`layers.N.K.a` [R, I] and `layers.N.K.b` [O, R], float32, by the names of an adapter's file."""


def initial_factors(shapes: Mapping[str, torch.Size], generator: torch.Generator) -> Factors:
    """Returns factors whose products are 0: normal `a` of variance 1 / I, and `b` of zeros (arXiv 2106.09685).

    Args:
        shapes: of each factor by its name.
        generator: draws `a`; gives the device.
    """
    device = generator.device
    return {
        name: torch.randn(shape, generator=generator, device=device) / math.sqrt(shape[1])
        if name.endswith(".a")
        else torch.zeros(shape, device=device)
        for name, shape in shapes.items()
    }


@torch.no_grad()
def trainable_terms(factors: Factors, model: LlamaModel) -> list[LayerTerms]:
    """Returns the terms of each layer in the model's number format, with gradients to come."""
    terms = [layer_terms(factors, i, model) for i in range(model.config.num_layers)]
    return [term.requires_grad_(requires_grad=True) for term in terms]


def collect_gradients(terms: Sequence[LayerTerms], factors: Mapping[str, Tensor]) -> None:
    """Sets the gradient of each factor, float32, from those of the terms that were made of them.

    Projections that share a matrix have terms whose `b` is block-diagonal: what lies off the blocks is no weight.
    """
    for i, layer in enumerate(terms):
        for name, keys in PROJECTIONS.items():
            term = layer.get_submodule(name)
            assert isinstance(term, LowRank)
            a_grad, b_grad = term.a.grad, term.b.grad
            assert a_grad is not None and b_grad is not None, "every term takes part in a pass"
            row = column = 0
            for key in keys:
                a_RI, b_OR = factors[f"layers.{i}.{key}.a"], factors[f"layers.{i}.{key}.b"]
                num_outputs, rank = b_OR.shape
                a_RI.grad = a_grad[column : column + rank].float()
                b_OR.grad = b_grad[row : row + num_outputs, column : column + rank].float()
                row, column = row + num_outputs, column + rank


@torch.no_grad()
def move_average(average: Factors, factors: Factors, *, step: int, decay: float) -> None:
    """Moves an average of factors towards their present values, in place; the first steps weigh more.

    Args:
        average: changed.
        factors: as they are after `step` steps.
        step: steps made.
        decay: share of the average that is kept; 0 copies the factors.
    """
    kept = min(decay, step / (step + 9))
    for name, tensor in factors.items():
        average[name].lerp_(tensor, 1 - kept)


def copied(factors: Factors) -> Factors:
    """Returns copies without gradients."""
    return {name: tensor.detach().clone() for name, tensor in factors.items()}
