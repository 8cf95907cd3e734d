"""How much device memory a model needs before anything of it is loaded: weights, prompt, workspace, and what is free.

Computed from the configuration, and where the model is there already from the headers of its files; reads no weight.
Uses meta tensors only. Shape legend: E experts, D hidden, I intermediate, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dgemma_engine.backends.cuda.graphs import MOST_GRAPHS
from dgemma_engine.bounded_store import MOST_DOCUMENTS
from dgemma_engine.checkpoint.key_map import TensorKind, parameter_sources
from dgemma_engine.checkpoint.loader import open_weights
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.devices import EDIT_TOKENS, PIECE_TOKENS, PROMPT_STORE_BYTES, TEXT_STORE_BYTES
from dgemma_engine.model.kv_rows import prompt_bytes
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.quantization.quantized_tensor import E2M1_GROUP, INT_GROUP, Encoding

GIB = 2**30
MIB = 2**20
# Memory taken before the first tensor: of a card by its driver and libraries, of the system by Python and torch.
CONTEXT_BYTES = {"cuda": 600 * MIB, "cpu": 300 * MIB}
# What a card needs besides: for each layer of a captured step some 14 kernels, 10 KiB of the driver's each, and what a
# desktop on the same card takes later. Both are estimates: nothing was measured on a card.
_GRAPH_LAYER_BYTES, _DESKTOP_BYTES = 140 * 1024, 512 * MIB
# Totals below are shown in MiB.
_SMALL_TOTAL_BYTES = 10 * GIB
# Passes over the vocabulary that are alive at once while a step is judged: logits, probabilities, their running sum.
_VOCABULARY_COPIES = 3
# Hidden states alive at once inside a layer, in widths of the residual stream; the widest are the chosen experts' inner
# states.
_LAYER_COPIES = 12
# Tokens that a ranking judges over the whole vocabulary.
_RANKED_TOKENS = 128
_QUANTISE = "make it smaller with dgemma-engine quantize"
# What is stored in few bits, or in a GGUF file, is not quantised again.
_FEWER = "choose a model with fewer parameters or bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of a plan.

    Attributes:
        name: what the memory is for.
        num_bytes: how much of it.
    """

    name: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What a model needs.

    Attributes:
        weights: by kind.
        prompt: keys and values of one prompt of the planned length.
        others: what the engine may keep of other documents, captured steps, and what is left to a desktop.
        workspace: what a step or a piece of prompt allocates and frees again.
        expansion: the buffer that packed weights are expanded into for each use; kernels need none.
        context: what the device's driver and libraries take.
        dtype: number format of what is not quantised, and of keys and values.
        smaller: the remedy for a message: how to make the model smaller.
    """

    weights: tuple[Item, ...]
    prompt: Item
    workspace: Item
    expansion: Item
    context: Item
    dtype: torch.dtype
    others: tuple[Item, ...] = ()
    smaller: str = _QUANTISE

    @property
    def total_bytes(self) -> int:
        """The sum of all items."""
        return sum(item.num_bytes for item in self.items)

    @property
    def items(self) -> tuple[Item, ...]:
        """All of them, weights first."""
        return (*self.weights, self.prompt, *self.others, self.workspace, self.expansion, self.context)

    def table(self) -> Iterator[str]:
        """Yields the plan as lines of text."""
        for item in (*self.items, Item(name="total planned", num_bytes=self.total_bytes)):
            if item.num_bytes:
                yield f"{item.name:44} {self.shown(item.num_bytes):>12}"
        yield f"{'number format':44} {str(self.dtype).removeprefix('torch.'):>12}"

    def shown(self, num_bytes: int) -> str:
        """Returns a size as text, in the unit that suits the plan's total."""
        if self.total_bytes < _SMALL_TOTAL_BYTES:
            return f"{num_bytes / MIB:,.0f} MiB"
        return f"{num_bytes / GIB:,.2f} GiB"

    def require(self, available_bytes: int, where: str) -> None:
        """Checks that it fits.

        Args:
            available_bytes: memory that is free for it.
            where: the device, for the message.

        Raises:
            CheckpointError: it does not; the message has the numbers and the remedy.
        """
        if self.total_bytes <= available_bytes:
            return
        weights = sum(item.num_bytes for item in self.weights)
        rest = self.total_bytes - weights - self.prompt.num_bytes - self.workspace.num_bytes
        last = "close other programs" if where == "cpu" else "use --device cpu"
        raise CheckpointError(
            f"the model needs {self.total_bytes / GIB:.1f} GiB (weights {weights / GIB:.1f}, prompt "
            f"{self.prompt.num_bytes / GIB:.1f}, workspace {self.workspace.num_bytes / GIB:.1f}, the rest "
            f"{rest / GIB:.1f}), {where} has {available_bytes / GIB:.1f} GiB free: {self.smaller}, lower the context, "
            f"or {last}"
        )


def memory_plan(
    config: ModelConfig,
    *,
    weight_format: Format | None,
    context_tokens: int,
    device_type: str,
    dtype: torch.dtype = torch.bfloat16,
) -> MemoryPlan:
    """Returns what a model needs.

    Args:
        config: dimensions.
        weight_format: of its quantised matrices, which stay packed in memory; None for a plain model.
        context_tokens: of the longest prompt, the canvas included.
        device_type: `cuda` or `cpu`.
        dtype: of what is not quantised, and of keys and values.

    Raises:
        CheckpointError: the context is shorter than a canvas, or longer than the model was made for.
    """
    sums: dict[TensorKind, int] = {}
    expanded: dict[str, int] = {}
    with torch.device("meta"):
        state = DiffusionGemma(config, Ops.reference()).state_dict()
    for source in parameter_sources(config):
        shape = state[source.parameter].shape
        encoding = weight_format.encoding(source.kind) if weight_format else None
        num_bytes = shape.numel() * dtype.itemsize if encoding is None else _packed_bytes(shape, encoding)
        sums[source.kind] = sums.get(source.kind, 0) + num_bytes
        if encoding is not None:
            # The two matrices of a mixture of experts are expanded together.
            module = source.parameter.removesuffix(".gate_up_proj").removesuffix(".down_proj")
            expanded[module] = expanded.get(module, 0) + shape.numel() * dtype.itemsize
    names = {kind: f"weights: {kind.value}" + _note(weight_format, kind) for kind in sums}
    weights = tuple(Item(name=names[kind], num_bytes=num_bytes) for kind, num_bytes in sums.items())
    expansion = max(expanded.values(), default=0) if device_type == "cpu" else 0
    smaller = _FEWER if weight_format in (Format.INT4, Format.NVFP4) else _QUANTISE
    return replace(_plan(config, weights, expansion, context_tokens, device_type, dtype), smaller=smaller)


def stored_plan(path: Path, *, context_tokens: int, device_type: str, dtype: torch.dtype) -> MemoryPlan:
    """Returns what a model needs whose quantised weights stay as they are stored.

    Args:
        path: its folder or GGUF file; only headers are read.
        context_tokens: of the longest prompt, the canvas included; as many as the model can have are enough.
        device_type: `cuda` or `cpu`.
        dtype: of what is not quantised, and of keys and values.

    Raises:
        CheckpointError: the model cannot be used, or not on such a device; the message names file or key.
    """
    config, stored = open_weights(path)
    sums: dict[TensorKind, int] = {}
    smaller = _QUANTISE
    with torch.device("meta"):
        state = DiffusionGemma(config, Ops.reference()).state_dict()
    with stored as weights:
        weights.require_device(device_type)
        for source in weights.sources:
            num_bytes = weights.packed_bytes(source)
            if num_bytes is None:
                num_bytes = state[source.parameter].numel() * dtype.itemsize
            else:
                smaller = _FEWER
            sums[source.kind] = sums.get(source.kind, 0) + num_bytes
    items = tuple(Item(name=f"weights: {kind.value}", num_bytes=num_bytes) for kind, num_bytes in sums.items())
    plan = _plan(config, items, 0, min(context_tokens, config.max_position_embeddings), device_type, dtype)
    return replace(plan, smaller=smaller)


def _plan(
    config: ModelConfig,
    weights: tuple[Item, ...],
    expansion_bytes: int,
    context_tokens: int,
    device_type: str,
    dtype: torch.dtype,
) -> MemoryPlan:
    if not config.canvas_length < context_tokens <= config.max_position_embeddings:
        raise CheckpointError(
            f"a context of {context_tokens} tokens cannot be planned: it must be more than the canvas of "
            f"{config.canvas_length} and at most {config.max_position_embeddings}"
        )
    is_card = device_type == "cuda"
    workspace = _kernel_workspace_bytes if is_card else _workspace_bytes
    prompt = prompt_bytes(config, context_tokens, dtype, edit_tokens=EDIT_TOKENS if is_card else None)
    on_a_card = (
        Item(
            name="captured steps",
            num_bytes=MOST_GRAPHS * len(config.layer_kinds) * _GRAPH_LAYER_BYTES
            + _layer_bytes(config, config.canvas_length, dtype),
        ),
        Item(name="left to a desktop", num_bytes=_DESKTOP_BYTES),
    )
    return MemoryPlan(
        weights=weights,
        prompt=Item(name=f"keys and values of {context_tokens:,} tokens", num_bytes=prompt),
        others=(*kept_of_others(prompt, device_type), *(on_a_card if is_card else ())),
        workspace=Item(name="workspace", num_bytes=workspace(config, dtype)),
        expansion=Item(name="buffer for expanded weights", num_bytes=expansion_bytes),
        context=Item(name="driver and libraries", num_bytes=CONTEXT_BYTES[device_type]),
        dtype=dtype,
    )


def kept_of_others(one_prompt_bytes: int, device_type: str) -> tuple[Item, ...]:
    """Returns what an engine of one user may keep of other documents than the one that is completed.

    Args:
        one_prompt_bytes: keys and values of one prompt of the planned length.
        device_type: `cuda` or `cpu`; texts are kept in the machine's memory, which is planned for `cpu` only.
    """
    stored = max(one_prompt_bytes, min(PROMPT_STORE_BYTES[device_type], MOST_DOCUMENTS * one_prompt_bytes))
    prompts = Item(name="other prompts that are kept warm", num_bytes=stored - one_prompt_bytes)
    texts = Item(name="indexes and syntax trees", num_bytes=TEXT_STORE_BYTES if device_type == "cpu" else 0)
    return prompts, texts


def _packed_bytes(shape: torch.Size, encoding: Encoding) -> int:
    rows, columns = shape[:-1].numel(), shape[-1]
    if encoding is Encoding.FP8:
        return rows * (columns + 2)
    codes = -(-columns // 2) if encoding.is_paired else columns
    if encoding is Encoding.E2M1:
        return rows * (codes + -(-columns // E2M1_GROUP) + 4)
    return rows * (codes + 2 * -(-columns // INT_GROUP))


def _workspace_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """The larger of two moments: inside a layer, and over the vocabulary; both for one full canvas."""
    positions = config.canvas_length
    inner = config.top_k_experts * 3 * config.moe_intermediate_size
    layer = positions * (_LAYER_COPIES * config.hidden_size + inner) * 4
    vocabulary = positions * config.vocab_size * (_VOCABULARY_COPIES * 4 + dtype.itemsize)
    return max(layer, vocabulary)


def _kernel_workspace_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Logits of one canvas, which stay, and the larger of two moments: a piece of prompt in a layer, and a ranking."""
    stay = config.canvas_length * config.vocab_size * dtype.itemsize
    layer = _layer_bytes(config, PIECE_TOKENS["cuda"], dtype)
    ranking = _RANKED_TOKENS * config.vocab_size * (dtype.itemsize + 2 * 4)
    return stay + max(layer, ranking)


def _layer_bytes(config: ModelConfig, num_tokens: int, dtype: torch.dtype) -> int:
    """What kernels allocate inside a layer."""
    inner = config.top_k_experts * (config.hidden_size + config.moe_intermediate_size)
    return num_tokens * (_LAYER_COPIES * config.hidden_size + inner) * dtype.itemsize


def _note(weight_format: Format | None, kind: TensorKind) -> str:
    encoding = weight_format.encoding(kind) if weight_format else None
    return f" ({encoding.value})" if encoding else ""
