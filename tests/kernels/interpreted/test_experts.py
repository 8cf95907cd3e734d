"""The grouped matrix kernel in every weight format, against float32 and against the reference in the same format."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dgemma_kernels import reference
from dgemma_kernels.launch.launch_table import for_device, read
from dgemma_kernels.ops import experts
from dgemma_kernels.packing.gpu import pack_for_kernel
from dgemma_kernels.reference.quantization import quantise_rows, quantise_weight, restore_rows, restore_weight
from dgemma_kernels.reference.routing import sorted_by_expert
from dgemma_kernels.tensors.formats import Rows, WeightFormat
from dgemma_kernels.tensors.routing import Routing

from tests.kernels.interpreted.errors import SUM_ERROR, assert_as_close, draw

NUM_EXPERTS, HIDDEN, INNER = 5, 192, 64


def choices(case: str) -> torch.Tensor:
    if case == "one token":
        return torch.tensor([[4, 1]])
    if case == "one expert":
        return torch.full((33, 1), 2)
    # Expert 3 gets no token.
    return torch.tensor([[0, 1], [4, 2], [2, 0], [1, 4], [0, 2]])


def routed(case: str, device: torch.device, tile_rows: int = 16) -> Routing:
    indices = choices(case).to(device)
    weights = draw(*indices.shape).abs().to(device)
    return sorted_by_expert(weights, indices.int(), NUM_EXPERTS, tile_rows)


@pytest.mark.parametrize("case", ["one token", "one expert", "one without tokens"])
@pytest.mark.parametrize("weight_format", list(WeightFormat))
def test_every_format(case: str, weight_format: WeightFormat, device: torch.device) -> None:
    check(case, weight_format, {}, INNER, device)


# Number of blocks per program of each part; an inner size of 192 makes three groups, an odd number of blocks.
@pytest.mark.parametrize("each", [1, 2, 4])
@pytest.mark.parametrize("weight_format", list(WeightFormat))
def test_several_blocks_a_program(each: int, weight_format: WeightFormat, device: torch.device) -> None:
    if each > 1:
        check("one without tokens", weight_format, parts(EACH=each), 192, device)
    if weight_format in (WeightFormat.FP8, WeightFormat.INT8, WeightFormat.INT4):
        check("one without tokens", weight_format, parts(weight_format, EACH=each, AHEAD=1), 192, device)


def parts(weight_format: WeightFormat | None = None, **values: int) -> dict[str, dict[str, int]]:
    ending = "" if weight_format is None else f".{weight_format}"
    return {f"experts_{part}{ending}": values for part in ("up", "down")}


def check(
    case: str, weight_format: WeightFormat, changes: dict[str, dict[str, int]], inner: int, device: torch.device
) -> None:
    routing, table = routed(case, device), for_device(device).changed(changes)
    x = draw(len(routing.weights_NK), HIDDEN).to(device).bfloat16()
    gate_up = quantise_weight(draw(NUM_EXPERTS, 2 * inner, HIDDEN).to(device).bfloat16() * 0.1, weight_format)
    down = quantise_weight(draw(NUM_EXPERTS, HIDDEN, inner, seed=3).to(device).bfloat16() * 0.1, weight_format)
    rows = quantise_rows(x, experts.row_format(weight_format))
    got = experts.experts(rows, routing, pack_for_kernel(gate_up), pack_for_kernel(down), table=table)
    expected = reference.experts.experts(rows, routing, gate_up, down)
    exact = in_float32(restore_rows(rows), routing, restore_weight(gate_up), restore_weight(down))
    assert got.dtype is torch.bfloat16
    assert_as_close(got, expected, exact)


def in_float32(x: torch.Tensor, routing: Routing, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    indices = routing.indices_NK.long()
    inner = torch.einsum("nd,nkod->nko", x.double(), gate_up.double()[indices])
    inner = reference.plain.gated_gelu(inner.flatten(0, 1)).view(*indices.shape, -1)
    return torch.einsum("nki,nkdi->nkd", inner, down.double()[indices]) * routing.weights_NK.double()[..., None]


def test_sizes_that_no_block_divides(device: torch.device) -> None:
    routing = routed("one without tokens", device)
    x, gate_up = draw(5, 100).to(device).bfloat16(), draw(NUM_EXPERTS, 2 * 21, 100).to(device).bfloat16() * 0.1
    down = draw(NUM_EXPERTS, 37, 21).to(device).bfloat16() * 0.1
    weights = [quantise_weight(weight, WeightFormat.PLAIN) for weight in (gate_up, down)]
    got = experts.experts(Rows(data_ND=x), routing, pack_for_kernel(weights[0]), pack_for_kernel(weights[1]))
    expected = reference.experts.experts(Rows(data_ND=x), routing, *weights)
    assert_as_close(got, expected, in_float32(x, routing, gate_up, down))


def test_sum_of_parts_is_the_mixture(device: torch.device) -> None:
    routing = routed("one without tokens", device)
    x, gate_up = draw(5, 64).to(device), draw(NUM_EXPERTS, 128, 64).to(device) * 0.1
    down = draw(NUM_EXPERTS, 64, 64).to(device) * 0.1
    packed = [pack_for_kernel(quantise_weight(weight, WeightFormat.PLAIN)) for weight in (gate_up, down)]
    got = experts.combine(experts.experts(Rows(data_ND=x), routing, packed[0], packed[1]))
    expected = reference.plain.experts_by_group(x, routing.weights_NK, routing.indices_NK, gate_up, down)
    assert torch.allclose(got, expected, atol=10 * SUM_ERROR)


def test_formats_must_agree(device: torch.device) -> None:
    routing = routed("one token", device)
    plain, int4 = (
        pack_for_kernel(quantise_weight(draw(NUM_EXPERTS, 128, 64).to(device), one))
        for one in (WeightFormat.PLAIN, WeightFormat.INT4)
    )
    with pytest.raises(ValueError, match="needs the same for down"):
        experts.experts(Rows(data_ND=torch.ones(1, 64, device=device)), routing, plain, int4)


def test_large_tiles_use_the_large_entries_of_the_table(device: torch.device) -> None:
    routing = routed("one expert", device, tile_rows=32)
    x, weights = draw(33, 64).to(device), draw(NUM_EXPERTS, 64, 64).to(device) * 0.1
    packed = pack_for_kernel(quantise_weight(weights, WeightFormat.PLAIN))
    gate_up = pack_for_kernel(quantise_weight(torch.cat((weights, weights), dim=1), WeightFormat.PLAIN))
    known = read("interpreter")
    small = {name: entry for name, entry in known.entries.items() if not name.endswith(".large")}
    with pytest.raises(ValueError, match=r"experts_up\.plain\.large"):
        experts.experts(Rows(data_ND=x), routing, gate_up, packed, table=replace(known, entries=small))
    large = experts.experts(Rows(data_ND=x), routing, gate_up, packed, table=known)
    tiles = experts.experts(Rows(data_ND=x), routed("one expert", device), gate_up, packed, table=known)
    assert torch.allclose(large, tiles, atol=10 * SUM_ERROR)


def test_prompt_gets_larger_tiles_than_a_canvas() -> None:
    table = read("sm_90")
    small = experts.tile_rows(256, 8, 128, table=table)
    assert small == experts.tile_rows(320, 8, 128, table=table) == table.of("tiles")["SMALL"]
    # If the mean number of rows equalled a tile, half of the experts would need two tiles.
    assert small < experts.tile_rows(512, 8, 128, table=table) == experts.tile_rows(4096, 8, 128, table=table)
