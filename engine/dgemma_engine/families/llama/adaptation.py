"""Adapters put into a `LlamaModel`: the causal one merged into its weights, the canvas one kept beside them.

A repository's adapter stands beside both and takes part in both modes, as if it were merged as well.

Shape legend: R rank, I inputs, O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from dgemma_kernels.packing.few_bits import Unmerged
from torch import Tensor, nn

from dgemma_engine.families.llama.adapter import Adapters
from dgemma_engine.families.llama.layers import LayerTerms, LlamaLayer, LowRank
from dgemma_engine.families.llama.model import LlamaAdapter, LlamaModel

PROJECTIONS = {"qkv_proj": "qkv", "o_proj": "o", "gate_up_proj": "gu", "down_proj": "d"}
"""Keys of an adapter whose outputs are the rows of one projection, in their order."""


@torch.no_grad()
def adapt(model: LlamaModel, adapters: Adapters) -> None:
    """Puts adapters into a model, in place.

    Its input embeddings get the row of the mask; the output matrix keeps the base's, as in training.

    Args:
        model: of the base, its weights loaded.
        adapters: of the same base.

    Raises:
        CheckpointError: an adapter does not fit; the message names the file and the tensor.
    """
    if adapters.causal is not None:
        merge(model, adapters.causal.tensors(model.config), base=model)
    if adapters.canvas is not None:
        tensors, mask_id = adapters.canvas.tensors(model.config), adapters.canvas.tokens.mask
        embedding = model.embed_tokens.weight
        if model.lm_head is None:
            model.lm_head = nn.Linear(*reversed(embedding.shape), bias=False, device="meta")
            model.lm_head.weight = nn.Parameter(embedding.clone(), requires_grad=False)
        embedding[mask_id] = tensors[f"rows.{mask_id}"].to(embedding)
        model.canvas_terms = [layer_terms(tensors, i, model) for i in range(model.config.num_layers)]


@torch.no_grad()
def merge(model: LlamaModel, tensors: Mapping[str, Tensor], *, base: LlamaModel) -> None:
    """Sets the projections of a model to those of its base with the products of a causal adapter added, in place.

    Args:
        model: written.
        tensors: factors by the names of an adapter's file, float32.
        base: read; may be `model`.
    """
    for i, (layer, plain) in enumerate(zip(model.layers, base.layers, strict=True)):
        for name, keys in PROJECTIONS.items():
            base_OI = plain.get_submodule(name).get_parameter("weight")
            layer.get_submodule(name).get_parameter("weight").copy_(_merged(base_OI, tensors, i, keys))


@torch.no_grad()
def merge_into(layer: LlamaLayer, tensors: Mapping[str, Tensor], layer_idx: int) -> dict[str, Unmerged]:
    """Gives the projections of one layer new weights, those of `merge`.

    Args:
        layer: of the base; its old weights stay as they are.
        tensors: factors by the names of an adapter's file, float32.
        layer_idx: whose.

    Returns:
        What each projection's weight was before, and the factors, by its name.
    """
    found: dict[str, Unmerged] = {}
    for name, keys in PROJECTIONS.items():
        projection = layer.get_submodule(name)
        base_OI = projection.get_parameter("weight").detach()
        merged_OI = _merged(base_OI, tensors, layer_idx, keys).to(base_OI.dtype)
        projection.register_parameter("weight", nn.Parameter(merged_OI, requires_grad=False))
        a_RI, b_OR = _side_by_side(tensors, layer_idx, keys)
        found[name] = Unmerged(base_OI=base_OI, a_RI=a_RI, b_OR=b_OR)
    return found


def _merged(base_OI: Tensor, tensors: Mapping[str, Tensor], layer_idx: int, keys: str) -> Tensor:
    """Returns a projection's weight with the products of its parts' factors added, float32."""
    products = [tensors[f"layers.{layer_idx}.{key}.b"] @ tensors[f"layers.{layer_idx}.{key}.a"] for key in keys]
    return base_OI.float() + torch.cat(products).to(base_OI.device)


def _side_by_side(tensors: Mapping[str, Tensor], layer_idx: int, keys: str) -> tuple[Tensor, Tensor]:
    """Returns the factors of a projection, of which each part reads its own: [R, I] and [O, R]."""
    a_RI = torch.cat([tensors[f"layers.{layer_idx}.{key}.a"] for key in keys])
    return a_RI, torch.block_diag(*(tensors[f"layers.{layer_idx}.{key}.b"] for key in keys))


def adapter_beside(model: LlamaModel, tensors: Mapping[str, Tensor]) -> LlamaAdapter:
    """Returns a repository's adapter as the model reads it.

    Args:
        model: with the adapters of its base in it (`adapt`).
        tensors: factors by the names of an adapter's file.
    """
    causal = [layer_terms(tensors, i, model) for i in range(model.config.num_layers)]
    canvas = [
        terms if others is None else _sum(terms, others)
        for terms, others in zip(causal, model.canvas_terms, strict=True)
    ]
    return LlamaAdapter(causal=causal, canvas=canvas)


def _sum(terms: LayerTerms, others: LayerTerms) -> LayerTerms:
    """Returns the terms that add what both do: a sum of two products is one product of the factors side by side."""

    def low_rank(name: str) -> LowRank:
        one, other = terms.get_submodule(name), others.get_submodule(name)
        assert isinstance(one, LowRank) and isinstance(other, LowRank)
        return LowRank(torch.cat((one.a, other.a)), torch.cat((one.b, other.b), dim=1))

    return LayerTerms(**{name: low_rank(name) for name in PROJECTIONS})


def layer_terms(tensors: Mapping[str, Tensor], layer_idx: int, model: LlamaModel) -> LayerTerms:
    """Returns the terms of a layer; of projections that are one matrix here, each part reads its own factors.

    Args:
        tensors: factors by the names of an adapter's file.
        layer_idx: whose.
        model: gives device and dtype.
    """

    def low_rank(keys: str) -> LowRank:
        a_RI, b_OR = _side_by_side(tensors, layer_idx, keys)
        return LowRank(a_RI.to(model.device, model.dtype), b_OR.to(model.device, model.dtype))

    return LayerTerms(**{name: low_rank(keys) for name, keys in PROJECTIONS.items()})
