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
MATRIX = re.compile(r"\b(?:HGMMA|QGMMA|IGMMA|HMMA|QMMA|IMMA|OMMA)\b")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
MATRIX_PTX = re.compile(r"wgmma\.mma_async|\bmma\.sync")
WARP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """The innermost loop with matrix instructions.

    Attributes:
        instructions: SASS instructions of one turn, per warp.
        matrix_instructions: those of them that multiply matrices.
    """

    instructions: int
    matrix_instructions: int


def inner_loop(sass: str) -> Loop | None:
    """Returns the shortest loop that multiplies matrices, or None where there is none."""
    found = [(int(address, 16), text) for address, text in INSTRUCTION.findall(sass)]
    loops: list[list[str]] = []
    for address, text in found:
        jump = JUMP.search(text)
        if jump and int(jump[1], 16) < address:
            body = [other for place, other in found if int(jump[1], 16) <= place <= address]
            if any(MATRIX.search(other) for other in body):
                loops.append(body)
    if not loops:
        return None
    body = min(loops, key=len)
    return Loop(
        instructions=sum("NOP" not in text for text in body),
        matrix_instructions=sum(bool(MATRIX.search(text)) for text in body),
    )


def disassembled(compiled: CompiledKernel) -> str:
    """Returns the SASS of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        return subprocess.run([DISASSEMBLER, "-sass", file.name], capture_output=True, text=True, check=True).stdout


def described(compiled: CompiledKernel, ptxas_log: str) -> dict[str, Any]:
    """Returns what a kernel takes of a multiprocessor; without spills both spill counts are 0."""
    stores, loads = max(((int(a), int(b)) for a, b in SPILLS.findall(ptxas_log)), default=(-1, -1))
    registers = [int(count) for count in REGISTERS.findall(ptxas_log)]
    return {
        "registers": max(registers, default=-1),
        "spill_store_bytes": stores,
        "spill_load_bytes": loads,
        "shared_bytes": compiled.metadata.shared,
        "num_warps": compiled.metadata.num_warps,
    }
