"""Every kernel as DiffusionGemma 26B launches it: host functions with tensors of its shapes.

A canvas of 256 positions after a prompt of 1,024 with room for 8,192, a prompt chunk of 2,048 for the causal kernels.
On the `meta` device tensors have no memory and launches can only be recorded; on a GPU they are random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from dgemma_kernels.launch.launch_table import LaunchTable
from dgemma_kernels.ops import attention, experts, linear, routing, rows, vocabulary
from dgemma_kernels.packing.gpu import PackedWeight
from dgemma_kernels.reference.quantization import quantise_rows
from dgemma_kernels.reference.routing import sorted_by_expert
from dgemma_kernels.tensors.formats import GROUP, Output, RowFormat, WeightFormat
from dgemma_kernels.tensors.kv_store import KVStore
from dgemma_kernels.tensors.routing import Routing, most_tiles
from dgemma_kernels.tensors.vocabulary_distribution import Banned
from torch import Tensor

HIDDEN, DENSE, INNER, NUM_EXPERTS, NUM_SELECTED, VOCAB = 2816, 2112, 704, 128, 8, 262144
NUM_HEADS, CANVAS, CHUNK, STORED, CAPACITY, WINDOW = 16, 256, 2048, 1024, 8192, 1024
KV_HEADS = {256: 8, 512: 2}
EPS, CAP = 1e-6, 30.0
Call = Callable[[LaunchTable], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One host call.

    Attributes:
        name: unique.
        prepare: makes the tensors on a device and returns the call, which launches one kernel or more.
        quick: whether it stands for its kernel in the tests.
    """

    name: str
    prepare: Callable[[torch.device], Call]
    quick: bool = False


def floats(device: torch.device, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Returns random numbers; 8-bit ones are cast from 16-bit ones."""
    if device.type == "meta":
        return torch.empty(*shape, dtype=dtype, device=device)
    if dtype.is_floating_point and dtype.itemsize > 1:
        return torch.empty(*shape, dtype=dtype, device=device).normal_(0.0, 0.1)
    # Any bits are valid numbers, except the two NaNs of fp8.
    bits = torch.randint(0, 127, shape, dtype=torch.uint8, device=device)
    return bits.view(dtype) if dtype.itemsize == 1 else bits.to(dtype)


def integers(device: torch.device, count: int, value: int = 0) -> Tensor:
    """Returns `count` copies of one int32."""
    return torch.full((count,), value, dtype=torch.int32, device=device)


def cases() -> list[Case]:
    """Returns all host calls of a denoising step and of a prefill, in every format."""
    return [*row_cases(), *expert_cases(), *linear_cases(), *attention_cases(), *vocabulary_cases()]


def row_cases() -> list[Case]:
    """Returns norms, rotary, gelu and routing."""
    return [
        Case(name="add_norm", prepare=_add_norm),
        Case(name="merge_norm", prepare=_merge_norm, quick=True),
        Case(name="quantise", prepare=_quantise),
        Case(name="gated_gelu", prepare=_gated_gelu, quick=True),
        Case(name="combine", prepare=_combine, quick=True),
        Case(name="route.canvas", prepare=_route(CANVAS), quick=True),
        Case(name="route.prompt", prepare=_route(CHUNK)),
        *(Case(name=f"norm_rotary.{size}", prepare=_rotary(size), quick=size == 256) for size in KV_HEADS),
    ]


def expert_cases() -> list[Case]:
    """Returns both expert kernels in every weight format, for a canvas and for a prompt."""
    return [
        Case(
            name=f"experts.{weight_format}.{name}",
            prepare=_experts(weight_format, num_tokens),
            quick=name == "canvas" and weight_format is not WeightFormat.INT8,
        )
        for weight_format in WeightFormat
        for name, num_tokens in (("canvas", CANVAS), ("prompt", CHUNK))
    ]


def linear_cases() -> list[Case]:
    """Returns the dense projections and the output matrix, which is never quantised."""
    shapes = {"qkv_sliding": (HIDDEN, 8192), "o_sliding": (4096, HIDDEN), "qkv_full": (HIDDEN, 9216)}
    shapes |= {"o_full": (8192, HIDDEN), "dense_up": (HIDDEN, 2 * DENSE), "dense_down": (DENSE, HIDDEN)}
    shapes |= {"lm_head": (HIDDEN, VOCAB)}
    return [
        Case(
            name=f"linear.{weight_format}.{name}",
            prepare=_linear(weight_format, *shape),
            quick=name == "qkv_sliding",
        )
        for weight_format in WeightFormat
        for name, shape in shapes.items()
        if name != "lm_head" or weight_format is WeightFormat.PLAIN
    ]


def attention_cases() -> list[Case]:
    """Returns canvas and causal attention of both layer kinds."""
    canvas = [Case(name=f"attention.canvas.{size}", prepare=_canvas(size), quick=True) for size in KV_HEADS]
    return [*canvas, *(Case(name=f"attention.causal.{size}", prepare=_causal(size)) for size in KV_HEADS)]


def vocabulary_cases() -> list[Case]:
    """Returns all operations after the output matrix."""
    return [
        Case(name="distribution", prepare=_distribution, quick=True),
        Case(name="soft_embeddings", prepare=_soft_embeddings, quick=True),
    ]


def packed(
    device: torch.device, weight_format: WeightFormat, num_experts: int, num_outputs: int, num_inputs: int
) -> PackedWeight:
    """Returns a random weight in the kernels' order."""
    groups, scale, row_scale = num_inputs // GROUP, None, None
    plain = {WeightFormat.FP8: torch.float8_e4m3fn, WeightFormat.INT8: torch.int8}.get(weight_format, torch.bfloat16)
    shape, dtype = (num_experts, num_outputs, num_inputs), plain
    if weight_format in (WeightFormat.INT4, WeightFormat.NVFP4):
        shape, dtype = (num_experts, groups, num_outputs, GROUP // 4), torch.int16
    if weight_format in (WeightFormat.INT4, WeightFormat.INT8):
        scale = floats(device, num_experts, groups, num_outputs)
    if weight_format is WeightFormat.NVFP4:
        scale = floats(device, num_experts, groups, 4, num_outputs, dtype=torch.float8_e4m3fn)
    if weight_format in (WeightFormat.FP8, WeightFormat.NVFP4):
        row_scale = floats(device, num_experts, num_outputs, dtype=torch.float32)
    return PackedWeight(
        format=weight_format,
        data=floats(device, *shape, dtype=dtype),
        scale=scale,
        row_scale_EO=row_scale,
        num_outputs=num_outputs,
        num_inputs=num_inputs,
    )


def routed(device: torch.device, num_tokens: int, tile_rows: int) -> Routing:
    """Returns a uniform random routing."""
    if device.type != "meta":
        chosen = torch.rand(num_tokens, NUM_EXPERTS, device=device).topk(NUM_SELECTED).indices.int()
        weights = torch.full(chosen.shape, 1 / NUM_SELECTED, device=device)
        return sorted_by_expert(weights, chosen, NUM_EXPERTS, tile_rows)
    assignments = num_tokens * NUM_SELECTED
    tiles = most_tiles(assignments, NUM_EXPERTS, tile_rows)
    return Routing(
        weights_NK=floats(device, num_tokens, NUM_SELECTED, dtype=torch.float32),
        indices_NK=floats(device, num_tokens, NUM_SELECTED, dtype=torch.int32),
        assignment_M=integers(device, assignments),
        offset_E1=integers(device, NUM_EXPERTS + 1),
        tile_expert_T=integers(device, tiles),
        tile_start_T=integers(device, tiles),
        tile_rows=tile_rows,
    )


def _readers(weight: Tensor) -> tuple[Output, ...]:
    kinds = (RowFormat.FP8_TOKEN, RowFormat.FP8_GROUP, RowFormat.PLAIN)
    return tuple(Output(weight_D=weight, format=kind) for kind in kinds)


def _add_norm(device: torch.device) -> Call:
    row, weight = floats(device, CANVAS, HIDDEN), floats(device, HIDDEN)
    return lambda table: rows.add_norm(row, row, weight, _readers(weight), EPS, table=table)


def _merge_norm(device: torch.device) -> Call:
    row, weight = floats(device, CANVAS, HIDDEN), floats(device, HIDDEN)
    parts, scalar = floats(device, CANVAS, NUM_SELECTED, HIDDEN), floats(device, 1)
    readers = _readers(weight)
    return lambda table: rows.merge_norm(row, row, parts, (weight, weight, weight), scalar, readers, EPS, table=table)


def _quantise(device: torch.device) -> Call:
    row = floats(device, CANVAS, HIDDEN)
    return lambda table: rows.quantise(row, RowFormat.FP8_TOKEN, table=table)


def _gated_gelu(device: torch.device) -> Call:
    row = floats(device, CANVAS, 2 * DENSE)
    return lambda table: rows.gated_gelu(row, RowFormat.FP8_TOKEN, table=table)


def _combine(device: torch.device) -> Call:
    parts = floats(device, CANVAS, NUM_SELECTED, HIDDEN)
    return lambda table: experts.combine(parts, table=table)


def _route(num_tokens: int) -> Callable[[torch.device], Call]:
    def prepare(device: torch.device) -> Call:
        x, router = floats(device, num_tokens, HIDDEN), floats(device, NUM_EXPERTS, HIDDEN)
        scale, arrivals = floats(device, NUM_EXPERTS), integers(device, 1)

        def call(table: LaunchTable) -> object:
            tile = experts.tile_rows(num_tokens, NUM_SELECTED, NUM_EXPERTS, table=table)
            return routing.route(x, router, scale, NUM_SELECTED, tile, arrivals_1=arrivals, table=table)

        return call

    return prepare


def _store(device: torch.device, head_dim: int) -> KVStore:
    k_GSd, v_GSd = (floats(device, KV_HEADS[head_dim], CAPACITY, head_dim) for _ in range(2))
    return KVStore.of(k_GSd, v_GSd)


def _rotary(head_dim: int) -> Callable[[torch.device], Call]:
    def prepare(device: torch.device) -> Call:
        num_kv = KV_HEADS[head_dim]
        heads = floats(device, CANVAS, NUM_HEADS + num_kv * (2 if head_dim == 256 else 1), head_dim)
        weight, angle = floats(device, head_dim), floats(device, CANVAS, head_dim)
        start = integers(device, 1, STORED)
        arguments = (heads, weight, weight, angle, angle, _store(device, head_dim), start, NUM_HEADS, EPS)
        return lambda table: rows.norm_rotary(*arguments, table=table)

    return prepare


def _experts(weight_format: WeightFormat, num_tokens: int) -> Callable[[torch.device], Call]:
    def prepare(device: torch.device) -> Call:
        x = floats(device, num_tokens, HIDDEN)
        inputs = quantise_rows(x, experts.row_format(weight_format))
        gate_up = packed(device, weight_format, NUM_EXPERTS, 2 * INNER, HIDDEN)
        down = packed(device, weight_format, NUM_EXPERTS, HIDDEN, INNER)
        tiles: dict[int, Routing] = {}

        def call(table: LaunchTable) -> object:
            tile = experts.tile_rows(num_tokens, NUM_SELECTED, NUM_EXPERTS, table=table)
            if tile not in tiles:
                tiles[tile] = routed(device, num_tokens, tile)
            return experts.experts(inputs, tiles[tile], gate_up, down, table=table)

        return call

    return prepare


def _linear(weight_format: WeightFormat, num_inputs: int, num_outputs: int) -> Callable[[torch.device], Call]:
    def prepare(device: torch.device) -> Call:
        inputs = quantise_rows(floats(device, CANVAS, num_inputs), linear.row_format(weight_format))
        weight = packed(device, weight_format, 1, num_outputs, num_inputs)
        return lambda table: linear.linear(inputs, weight, table=table)

    return prepare


def _canvas(head_dim: int) -> Callable[[torch.device], Call]:
    def prepare(device: torch.device) -> Call:
        q, store = floats(device, CANVAS, NUM_HEADS, head_dim), _store(device, head_dim)
        row, stored = integers(device, CANVAS), integers(device, 1, STORED)
        window = WINDOW if head_dim == 256 else None
        return lambda table: attention.canvas(q, store, row, stored, stored, window, table=table)

    return prepare


def _causal(head_dim: int) -> Callable[[torch.device], Call]:
    def prepare(device: torch.device) -> Call:
        q, store = floats(device, CHUNK, NUM_HEADS, head_dim), _store(device, head_dim)
        position = torch.arange(CHUNK, dtype=torch.int32, device=device)
        places = (integers(device, CHUNK), position, integers(device, 1), integers(device, 1))
        window = WINDOW if head_dim == 256 else None
        return lambda table: attention.causal(q, store, *places, window, table=table)

    return prepare


def _distribution(device: torch.device) -> Call:
    logits, temperature = floats(device, CANVAS, VOCAB), torch.ones(1, device=device)
    levels = torch.full((CANVAS,), 0.5, device=device)
    sets = torch.zeros(2, VOCAB, dtype=torch.bool, device=device)
    banned = Banned(sets_RV=sets, set_of_N=integers(device, CANVAS))
    return lambda table: vocabulary.distribution(logits, temperature, levels, CAP, banned, table=table)


def _soft_embeddings(device: torch.device) -> Call:
    probs, embed = floats(device, CANVAS, VOCAB), floats(device, VOCAB, HIDDEN)
    return lambda table: vocabulary.soft_embeddings(probs, embed, HIDDEN**0.5, table=table)
