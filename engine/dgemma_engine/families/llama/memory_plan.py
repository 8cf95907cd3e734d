"""How much memory a Llama needs, from its dimensions alone. Knows no tensors but imaginary ones.

Shape legend: D hidden, V vocabulary.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from dgemma_kernels.packing.few_bits import DENSE, VECTOR_INPUTS, ProductKinds, RowWeights
from dgemma_kernels.packing.four_bits import GROUP

from dgemma_engine.backends.memory_plan import CONTEXT_BYTES, Item, MemoryPlan, kept_of_others
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.model.devices import PIECE_TOKENS
from dgemma_engine.model.kv_rows import prompt_bytes
from dgemma_engine.model.ops import Ops

# What the parameters of a name are for.
_KINDS = {
    "embed_tokens": "embedding", "lm_head": "output matrix", "qkv_proj": "attention", "o_proj": "attention",
    "gate_up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip
# Hidden states alive at once inside a layer, in widths of the residual stream.
_LAYER_COPIES = 12
# Tokens that a ranking judges over the whole vocabulary, in logits and float32 probabilities.
_RANKED_TOKENS = 128


def llama_plan(
    config: LlamaConfig,
    *,
    has_head: bool,
    context_tokens: int,
    device_type: str,
    dtype: torch.dtype,
    products: Callable[[int], ProductKinds] = lambda _num_values: DENSE,
    four_bit_values: int = 0,
    adapter_rank: int = 0,
    merged_rank: int = 0,
) -> MemoryPlan:
    """Returns what a model needs.

    Args:
        config: dimensions.
        has_head: whether the output matrix is one of its own, and not the embedding.
        context_tokens: of the longest prompt, the canvas included.
        device_type: `cuda` or `cpu`.
        dtype: of weights, keys and values.
        products: returns what those of a model with so many values read on a processor.
        four_bit_values: weights that are stored in 4 bits, so that their second copy can be.
        adapter_rank: of the canvas adapter; 0 without one.
        merged_rank: of the causal adapter, likewise; copies in 4 bits are the base's and need its factors.

    Raises:
        CheckpointError: the context is shorter than a canvas, or longer than the model was made for.
    """
    if not config.canvas_length < context_tokens <= config.max_position_embeddings:
        raise CheckpointError(
            f"a context of {context_tokens} tokens cannot be planned: it must be more than the canvas of "
            f"{config.canvas_length} and at most {config.max_position_embeddings}"
        )
    with torch.device("meta"):
        model = LlamaModel(config, Ops.reference(), has_head=has_head)
    sums: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        kind = _KINDS.get(name.split(".")[-2], "norms")
        sums[kind] = sums.get(kind, 0) + parameter.numel() * dtype.itemsize
    is_packed = device_type == "cpu"
    kinds = products(sum(sums.values()) // dtype.itemsize) if is_packed else DENSE
    if is_packed or adapter_rank:
        # The embedding is looked up, or holds the adapter's marks: it cannot be the output matrix as well.
        sums["output matrix"] = sums["embedding"]
    copies = 0
    if kinds.row.in_four_bits and four_bit_values and merged_rank:
        # In 8 bits; a scale for each output is too few to count.
        copies += _adapter_values(config, merged_rank, multiple=VECTOR_INPUTS)
    for name in ("attention", "output matrix", "mlp") if kinds.row is not RowWeights.DENSE else ():
        num_values = sums[name] // dtype.itemsize
        num_stored = min(four_bit_values, num_values)
        copies += _copies_bytes(num_values, kinds.row, num_stored)
        four_bit_values -= num_stored
    # The codes alone; a scale and a zero for each output are too few to count.
    for name in ("mlp",) * kinds.int8_mlp + ("embedding", "output matrix") * kinds.is_compact:
        sums[name] //= dtype.itemsize
    sums |= {"copies for single tokens": copies} if copies else {}
    if adapter_rank:
        sums["canvas adapter"] = _adapter_values(config, adapter_rank) * dtype.itemsize
    layer = PIECE_TOKENS[device_type] * (_LAYER_COPIES * config.hidden_size + 3 * config.intermediate_size)
    ranking = _RANKED_TOKENS * config.vocab_size * (dtype.itemsize + 2 * 4)
    prompt = prompt_bytes(config, context_tokens, dtype)
    return MemoryPlan(
        weights=tuple(Item(name=f"weights: {kind}", num_bytes=num_bytes) for kind, num_bytes in sums.items()),
        prompt=Item(name=f"keys and values of {context_tokens:,} tokens", num_bytes=prompt),
        others=kept_of_others(prompt, device_type),
        workspace=Item(name="workspace", num_bytes=max(layer * dtype.itemsize, ranking)),
        expansion=Item(name="buffer for expanded weights", num_bytes=0),
        context=Item(name="driver and libraries", num_bytes=CONTEXT_BYTES[device_type]),
        dtype=dtype,
        smaller="choose a model with fewer parameters (a GGUF file of fewer bits needs as much: weights are expanded)",
    )


def _copies_bytes(num_values: int, row: RowWeights, four_bit_values: int) -> int:
    """Returns the size of the second copies; those in 8 bits have a scale per output, too few to count."""
    in_four_bits = min(four_bit_values, num_values) if row.in_four_bits else 0
    # A step and a middle for each group, in bfloat16.
    return num_values - in_four_bits + in_four_bits // 2 + in_four_bits // GROUP * 4


def _adapter_values(config: LlamaConfig, rank: int, *, multiple: int = 1) -> int:
    """Returns the values of its factors, with one matrix for each projection here (`adaptation`).

    Args:
        config: dimensions.
        rank: of each part of a projection.
        multiple: what the rank of all parts is padded to.
    """
    size, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_size, config.num_key_value_heads * config.head_size
    projections = ((3, size, q + 2 * kv), (1, q, size), (2, size, 2 * inner), (1, inner, size))
    ranks = [-(-parts * rank // multiple) * multiple for parts, _inputs, _outputs in projections]
    widths = [inputs + outputs for _parts, inputs, outputs in projections]
    return config.num_layers * sum(map(operator.mul, ranks, widths))
