"""A loaded model and the operations of its device -> the model that runs: fused where there are fused operations."""

from __future__ import annotations

from dgemma_engine.backends.cuda.layers import FusedSelfConditioning, fused_layers
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma


def fuse(model: DiffusionGemma, ops: Ops) -> DiffusionModel:
    """Returns the model to run: a `FusedModel` where the operations include fused ones, `model` itself elsewhere.

    Args:
        model: in inference mode, its weights final; taken apart layer by layer if a fused one is made of it.
        ops: the operations.

    Raises:
        CheckpointError: the operations cannot run on the model's device, or not with its weights.
    """
    if ops.fused is None:
        return model
    dtype = model.dtype
    made = FusedModel(
        model.config,
        ops,
        embed_tokens=model.embed_tokens,
        begin=FusedSelfConditioning(model.self_conditioning, model.config, ops.fused, dtype),
        layers=fused_layers(list(model.layers), model.config, ops.fused, dtype),
        norm_D=model.norm.weight.detach(),
    )
    ops.fused.require(model.device, made.weight_formats)
    return made
