"""Products with weights in ggml's blocks: their accuracy, their memory and the ways to compute them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dgemma_engine.model.ops import Ops
from dgemma_engine.quantization import block_layers
from dgemma_engine.quantization.block_layers import (
    BlockExperts,
    BlockLinear,
    FourBitMatrix,
    StoredMatrix,
    pack_blocks,
    pack_stack,
    packed_bytes,
)
from dgemma_engine.quantization.ggml_blocks import expand
from dgemma_kernels.packing.four_bits import expanded_four_bits, four_bit_product

pytestmark = pytest.mark.numerical

# Bytes of a block, offsets of its 16-bit numbers, their typical magnitude, values of a block.
TYPES = {
    "Q4_0": (18, {0: 0.03}, 32),
    "Q4_1": (20, {0: 0.03, 2: -0.2}, 32),
    "Q4_K": (144, {0: 6e-4, 2: 45e-4}, 256),
    "Q6_K": (210, {208: 15e-5}, 256),
    "Q8_0": (34, {0: 2e-3}, 32),
    "IQ4_XS": (136, {0: 15e-5}, 256),
}
FOUR_BITS = ("Q4_0", "Q4_1", "Q4_K")


def blocks(kind: str, num_rows: int, num_columns: int, seed: int = 0) -> torch.Tensor:
    num_bytes, scales, per_block = TYPES[kind]
    generator = torch.Generator().manual_seed(seed)
    shape = (num_rows, num_columns // per_block, num_bytes)
    raw = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    for offset, scale in scales.items():
        halves = scale * (0.8 + 0.4 * torch.rand(*shape[:2], 1, generator=generator))
        raw[..., offset : offset + 2] = halves.half().view(torch.uint8)
    return raw


def floats(kind: str, raw_OBb: torch.Tensor) -> torch.Tensor:
    return expand(kind, raw_OBb.flatten(0, 1)).view(len(raw_OBb), -1)


def rows(num: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(num, width, generator=torch.Generator().manual_seed(7)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 5, 33, 65])
@pytest.mark.parametrize("kind", TYPES)
def test_product_errs_no_more_than_twice_as_bfloat16(kind: str, num_rows: int, dtype: torch.dtype) -> None:
    raw, x_NI = blocks(kind, 128, 512), rows(num_rows, 512, dtype)
    weight = floats(kind, raw)
    exact = F.linear(x_NI.double(), weight.double())
    found = pack_blocks(kind, raw)(x_NI)
    assert found.dtype is dtype
    allowed = (F.linear(x_NI.bfloat16(), weight.bfloat16()).double() - exact).abs()
    assert (found - exact).abs().max() <= 2 * allowed.max()


@pytest.mark.parametrize("kind", TYPES)
def test_evenly_spaced_four_bits_are_multiplied_as_codes(kind: str) -> None:
    raw = blocks(kind, 64, 512)
    packed = pack_blocks(kind, raw)
    assert isinstance(packed, FourBitMatrix) == (kind in FOUR_BITS)
    if isinstance(packed, FourBitMatrix):
        kept = sum(part.numel() * part.element_size() for part in (packed.codes, packed.scales))
        assert kept == packed_bytes(kind, 64 * 512, raw.numel()) == 64 * 512 * 10 // 16
    else:
        assert packed_bytes(kind, 64 * 512, raw.numel()) == raw.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_codes_expand_to_the_weight(dtype: torch.dtype) -> None:
    raw = blocks("Q4_K", 192, 512)
    packed = pack_blocks("Q4_K", raw)
    assert isinstance(packed, FourBitMatrix)
    if packed.tile_rows == 0:
        pytest.skip("this torch packs codes in an unknown layout: expanding them was not checked")
    found_IO = expanded_four_bits(packed.codes, packed.scales, packed.tile_rows, dtype)
    weight = floats("Q4_K", raw)
    # Scale and zero point in bfloat16 have eight significant bits.
    assert (found_IO.t().float() - weight).abs().max() <= 2**-7 * weight.abs().max()
    # The same weight in both ways.
    x_NI = rows(65, 512).bfloat16()
    by_codes = four_bit_product(x_NI, packed.codes, packed.scales).float()
    torch.testing.assert_close(packed(x_NI).float(), by_codes, rtol=0.02, atol=0.05)


def test_codes_in_an_unknown_layout_are_multiplied_and_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_layers, "four_bit_tile", lambda *_: 0)
    raw, x_NI = blocks("Q4_K", 64, 512), rows(65, 512, torch.bfloat16)
    packed = pack_blocks("Q4_K", raw)
    assert isinstance(packed, FourBitMatrix)
    assert torch.equal(packed(x_NI), four_bit_product(x_NI, packed.codes, packed.scales))


@pytest.mark.parametrize("fault", [RuntimeError, AttributeError])
def test_matrix_that_torch_cannot_pack_stays_stored(fault: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise fault

    monkeypatch.setattr(block_layers, "packed_four_bits", fail)
    raw = blocks("Q4_K", 64, 256)
    assert isinstance(pack_blocks("Q4_K", raw), StoredMatrix)


def test_inexact_product_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = block_layers.four_bit_product
    monkeypatch.setattr(block_layers, "four_bit_product", lambda *parts: exact(*parts).roll(1, -1))
    assert isinstance(pack_blocks("Q4_K", blocks("Q4_K", 64, 256)), StoredMatrix)


def test_product_with_an_odd_number_of_outputs() -> None:
    raw, x_NI = blocks("Q4_K", 23, 256), rows(3, 256)
    torch.testing.assert_close(pack_blocks("Q4_K", raw)(x_NI), F.linear(x_NI, floats("Q4_K", raw)), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("kind", ["Q4_K", "Q8_0"])
def test_stack_shares_memory_and_equals_its_matrices(kind: str) -> None:
    raw = [blocks(kind, 64, 256, seed=i) for i in range(3)]
    stack, x_NI = pack_stack(kind, 3, raw.__getitem__), rows(2, 256)
    for matrix, own in zip(stack, raw, strict=True):
        assert torch.equal(matrix(x_NI), pack_blocks(kind, own)(x_NI))
    parts = [matrix.codes if isinstance(matrix, FourBitMatrix) else matrix.blocks_OBb for matrix in stack]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1


def test_large_matrix_is_expanded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_layers, "_PIECE_VALUES", 3 * 512)
    seen: list[int] = []

    def counted(kind: str, raw_Nb: torch.Tensor) -> torch.Tensor:
        seen.append(len(raw_Nb))
        return expand(kind, raw_Nb)

    monkeypatch.setattr(block_layers, "expand", counted)
    raw, x_NI = blocks("Q8_0", 8, 512), rows(2, 512)
    found = pack_blocks("Q8_0", raw)(x_NI)
    assert seen == [3 * 16, 3 * 16, 2 * 16]
    torch.testing.assert_close(found, F.linear(x_NI, floats("Q8_0", raw)), rtol=1e-5, atol=1e-5)


def test_linear_concatenates_matrices_of_several_types() -> None:
    parts = {"Q8_0": blocks("Q8_0", 16, 256), "Q6_K": blocks("Q6_K", 8, 256), "IQ4_XS": blocks("IQ4_XS", 4, 256)}
    layer = BlockLinear([pack_blocks(kind, raw) for kind, raw in parts.items()])
    x = rows(6, 256).view(2, 3, 256)
    expected = F.linear(x, torch.cat([floats(kind, raw) for kind, raw in parts.items()]))
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_experts_equal_those_with_weights_as_floats() -> None:
    gate_up = [blocks("Q6_K", 128, 256, seed=i) for i in range(6)]
    down = [blocks("Q8_0", 256, 64, seed=i) for i in range(6)]
    layer = BlockExperts([pack_blocks("Q6_K", raw) for raw in gate_up], [pack_blocks("Q8_0", raw) for raw in down])
    x_ND, shares_NK = rows(5, 256), torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    chosen_NK = torch.tensor([[0, 4], [4, 1], [1, 0], [4, 0], [5, 4]])
    whole = [torch.stack([floats(kind, raw) for raw in raws]) for kind, raws in (("Q6_K", gate_up), ("Q8_0", down))]
    expected = Ops.reference().experts(x_ND, shares_NK, chosen_NK, *whole)
    torch.testing.assert_close(layer(x_ND, shares_NK, chosen_NK), expected, rtol=1e-4, atol=1e-4)
