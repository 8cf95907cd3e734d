"""Adapters put into a `LlamaModel`: the causal one merged into its weights, the canvas one kept beside them.

Shape legend: R rank, I inputs, O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dgemma_engine.families.llama.adapter import Adapters
from dgemma_engine.families.llama.layers import LayerTerms, LlamaLayer, LowRank
from dgemma_engine.families.llama.model import LlamaModel

# Keys of an adapter whose outputs are the rows of one projection, in their order.
_PROJECTIONS = {"qkv_proj": "qkv", "o_proj": "o", "gate_up_proj": "gu", "down_proj": "d"}


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
        tensors = adapters.causal.tensors(model.config)
        for i, layer in enumerate(model.layers):
            assert isinstance(layer, LlamaLayer)
            for name, keys in _PROJECTIONS.items():
                weight: Tensor = layer.get_submodule(name).get_parameter("weight")
                products = [tensors[f"layers.{i}.{key}.b"] @ tensors[f"layers.{i}.{key}.a"] for key in keys]
                weight.copy_(weight.float() + torch.cat(products).to(weight.device))
    if adapters.canvas is not None:
        tensors, mask_id = adapters.canvas.tensors(model.config), adapters.canvas.tokens.mask
        embedding = model.embed_tokens.weight
        if model.lm_head is None:
            model.lm_head = nn.Linear(*reversed(embedding.shape), bias=False, device="meta")
            model.lm_head.weight = nn.Parameter(embedding.clone(), requires_grad=False)
        embedding[mask_id] = tensors[f"rows.{mask_id}"].to(embedding)
        model.canvas_terms = [_terms(tensors, i, model) for i in range(model.config.num_layers)]


def _terms(tensors: Mapping[str, Tensor], layer_idx: int, model: LlamaModel) -> LayerTerms:
    """Returns the terms of a layer; of projections that are one matrix here, each part reads its own factors."""

    def low_rank(keys: str) -> LowRank:
        a_RI = torch.cat([tensors[f"layers.{layer_idx}.{key}.a"] for key in keys])
        b_OR = torch.block_diag(*(tensors[f"layers.{layer_idx}.{key}.b"] for key in keys))
        return LowRank(a_RI.to(model.device, model.dtype), b_OR.to(model.device, model.dtype))

    return LayerTerms(**{name: low_rank(keys) for name, keys in _PROJECTIONS.items()})
