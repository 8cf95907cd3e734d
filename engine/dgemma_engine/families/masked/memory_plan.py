"""How much memory a decoder of masked diffusion needs, from its dimensions alone. Uses meta tensors only.

Shape legend: D hidden, V vocabulary.
"""

from __future__ import annotations

import torch

from dgemma_engine.backends.memory_plan import CONTEXT_BYTES, Item, MemoryPlan, kept_of_others
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.masked.config import MaskedConfig
from dgemma_engine.families.masked.model import MOST_TOGETHER, MaskedModel
from dgemma_engine.model.devices import PIECE_TOKENS
from dgemma_engine.model.kv_rows import prompt_bytes
from dgemma_engine.model.ops import Ops

# What the parameters of each name are for.
_KINDS = {
    "embed_tokens": "embedding", "lm_head": "output matrix", "qkv_proj": "attention", "o_proj": "attention",
    "gate_up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip
# Hidden states alive at once inside a layer, in widths of the residual stream.
_LAYER_COPIES = 12
# Free positions of all rows of a first step: those of the longest grid of lengths.
_FREE_POSITIONS = 512


def masked_plan(
    config: MaskedConfig, *, has_head: bool, window_tokens: int, device_type: str, dtype: torch.dtype
) -> MemoryPlan:
    """Returns what a model needs.

    Args:
        config: dimensions.
        has_head: whether the output matrix is one of its own, and not the embedding.
        window_tokens: prompt, canvas and suffix of one row; each pass computes all of them, or where attention goes
            block by block keeps those of the prompt.
        device_type: `cuda` or `cpu`.
        dtype: of weights and states.

    Raises:
        CheckpointError: the window is shorter than a canvas, or longer than the model was made for.
    """
    if not config.canvas_length < window_tokens <= config.max_position_embeddings:
        raise CheckpointError(
            f"a context of {window_tokens} tokens cannot be planned: it must be more than the canvas of "
            f"{config.canvas_length} and at most {config.max_position_embeddings}"
        )
    with torch.device("meta"):
        model = MaskedModel(config, Ops.reference(), has_head=has_head)
    sums: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        kind = _KINDS.get(name.split(".")[-2], "norms")
        sums[kind] = sums.get(kind, 0) + parameter.numel() * dtype.itemsize
    num_tokens = PIECE_TOKENS[device_type] if config.block_tokens else max(window_tokens, MOST_TOGETHER)
    layer = num_tokens * (_LAYER_COPIES * config.hidden_size + 3 * config.intermediate_size) * dtype.itemsize
    # Logits as they are computed, scaled ones and probabilities; the two last stay from step to step.
    vocabulary = _FREE_POSITIONS * config.vocab_size * (dtype.itemsize + 2 * 4)
    kept = prompt_bytes(config, window_tokens, dtype) if config.block_tokens else 0
    passes = "workspace" if config.block_tokens else f"passes over windows of {window_tokens:,} tokens"
    return MemoryPlan(
        weights=tuple(Item(name=f"weights: {kind}", num_bytes=num_bytes) for kind, num_bytes in sums.items()),
        prompt=Item(name=f"keys and values of {window_tokens:,} tokens", num_bytes=kept),
        others=kept_of_others(kept, device_type),
        workspace=Item(name=passes, num_bytes=layer + vocabulary),
        expansion=Item(name="buffer for expanded weights", num_bytes=0),
        context=Item(name="driver and libraries", num_bytes=CONTEXT_BYTES[device_type]),
        dtype=dtype,
        smaller="choose a model with fewer parameters",
    )
