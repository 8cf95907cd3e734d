"""Compiled kernel -> registers, spills, shared memory, and what its inner loop costs, from ptxas and disassembly."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton.backends.nvidia
from triton.compiler import CompiledKernel

DISASSEMBLER = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", flags=re.MULTILINE)
JUMP = re.compile(r"\bBRA\b.* 0x([0-9a-f]+)$")
WAIT = re.compile(r"\bWARPGROUP\.DEPBAR\b")
MATRIX = re.compile(r"\b(?:HGMMA|QGMMA|IGMMA|HMMA|QMMA|IMMA|OMMA)\b")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
MATRIX_PTX = re.compile(r"wgmma\.mma_async|\bmma\.sync")
WARP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop with matrix instructions and no such loop inside.

    Attributes:
        instructions: SASS instructions of one turn, per warp.
        matrix_instructions: those of them that multiply matrices.
        waits: those of them that wait for products of a warp group.
        skipped_instructions: those of them that a jump within the loop leaves out, such as storing a block.
    """

    instructions: int
    matrix_instructions: int
    waits: int
    skipped_instructions: int


def inner_loop(sass: str) -> Loop | None:
    """Returns the shortest loop that multiplies matrices, or None where there is none."""
    return min(matrix_loops(sass), key=lambda loop: loop.instructions, default=None)


def matrix_loops(sass: str) -> list[Loop]:
    """Returns the innermost loops that multiply matrices, in their order in the code."""
    found = [(int(address, 16), text) for address, text in INSTRUCTION.findall(sass)]
    loops: list[tuple[int, int]] = []
    for address, text in found:
        jump = JUMP.search(text)
        if jump and int(jump[1], 16) < address:
            start = int(jump[1], 16)
            if any(MATRIX.search(other) for place, other in found if start <= place <= address):
                loops.append((start, address))
    inner = [
        loop
        for loop in loops
        if not any(loop != other and loop[0] <= other[0] <= other[1] <= loop[1] for other in loops)
    ]
    return [_loop([one for one in found if start <= one[0] <= end]) for start, end in sorted(inner)]


def _loop(body: list[tuple[int, str]]) -> Loop:
    texts = [text for _, text in body]
    return Loop(
        instructions=_count(texts),
        matrix_instructions=sum(bool(MATRIX.search(text)) for text in texts),
        waits=sum(bool(WAIT.search(text)) for text in texts),
        skipped_instructions=_count(_skipped(body)),
    )


def _count(texts: list[str]) -> int:
    return sum("NOP" not in text for text in texts)


def _skipped(body: list[tuple[int, str]]) -> list[str]:
    """Returns the longest stretch without products that a jump within a loop leaves out."""
    longest: list[str] = []
    for address, text in body:
        jump = JUMP.search(text)
        if jump and address < int(jump[1], 16) <= body[-1][0]:
            stretch = [other for place, other in body if address < place < int(jump[1], 16)]
            if len(stretch) > len(longest) and not any(MATRIX.search(other) for other in stretch):
                longest = stretch
    return longest


def disassembled(compiled: CompiledKernel) -> str:
    """Returns the SASS of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        return subprocess.run([DISASSEMBLER, "-sass", file.name], capture_output=True, text=True, check=True).stdout


def described(compiled: CompiledKernel, ptxas_log: str) -> dict[str, Any]:
    """Returns registers, spilled bytes, shared memory and warps; -1 for what the log of ptxas does not name."""
    stores, loads = max(((int(a), int(b)) for a, b in SPILLS.findall(ptxas_log)), default=(-1, -1))
    registers = [int(count) for count in REGISTERS.findall(ptxas_log)]
    return {
        "registers": max(registers, default=-1),
        "spill_store_bytes": stores,
        "spill_load_bytes": loads,
        "shared_bytes": compiled.metadata.shared,
        "num_warps": compiled.metadata.num_warps,
    }
