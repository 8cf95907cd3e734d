"""Executes the PTX of the four-bit decoders, which Triton's interpreter never runs, on every word."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from dgemma_kernels.reference.quantization import FP4_MAGNITUDES
from torch import Tensor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only: no decoder was checked")

MASK = 0xFFFFFFFF


def as_float(bits: Tensor) -> Tensor:
    """Values of bf16 bits."""
    return (bits << 16).to(torch.int32).view(torch.float32)


def fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`fma.rn.bf16x2`, for results that bf16 holds exactly."""
    result = torch.zeros_like(a)
    for shift in (0, 16):
        lane = as_float((a >> shift) & 0xFFFF).double() * as_float((b >> shift) & 0xFFFF).double()
        lane = (lane + as_float((c >> shift) & 0xFFFF).double()).float()
        bits = lane.view(torch.int32).long() & MASK
        assert (bits & 0xFFFF == 0).all()
        result |= (bits >> 16) << shift
    return result


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "mov.b32": lambda a: a,
    "shl.b32": lambda a, b: (a << b) & MASK,
    "shr.u32": lambda a, b: a >> b,
    "and.b32": lambda a, b: a & b,
    "lop3.b32": lambda a, b, c, _table: (a & b) | c,
    "fma.rn.bf16x2": fused,
}


def run(assembly: str, words: Tensor) -> list[Tensor]:
    """Returns the four output registers of each input word."""
    registers: dict[str, Tensor] = {"$4": words}
    for line in assembly.strip("{}").split(";"):
        name, _, operands = line.strip().partition(" ")
        if not name or name == ".reg":
            continue
        target, *sources = (operand.strip() for operand in operands.split(","))
        if name == "lop3.b32":
            assert sources[-1] == "0xea", "the table of (a & b) | c"
        values = [registers[one] if one in registers else torch.full_like(words, int(one, 0)) for one in sources]
        registers[target] = OPERATIONS[name](*values)
    return [registers[f"${index}"] for index in range(4)]


def words_of_all_halves() -> tuple[Tensor, Tensor, Tensor]:
    low = torch.arange(65536)
    high = torch.randperm(65536, generator=torch.Generator().manual_seed(0))
    return low, high, low | (high << 16)


@pytest.mark.parametrize("kind", ["int4", "e2m1"])
def test_every_word_decodes_to_its_nibbles(kind: str) -> None:
    from dgemma_kernels.ops import _weights

    assembly = (_weights.INT4_ASM if kind == "int4" else _weights.E2M1_ASM).value
    low, high, words = words_of_all_halves()
    magnitudes = torch.tensor(FP4_MAGNITUDES, dtype=torch.float64)
    for quarter, register in enumerate(run(assembly, words)):
        for half, lane in ((low, register & 0xFFFF), (high, register >> 16)):
            code = (half >> 4 * quarter) & 15
            if kind == "int4":
                expected = code.double() - 8
            else:
                expected = magnitudes[code & 7] * (1.0 - 2.0 * (code >> 3)) * 2.0**-126
            assert torch.equal(as_float(lane).double(), expected)
