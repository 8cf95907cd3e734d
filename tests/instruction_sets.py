"""Runs the numerical tests once for each instruction set: `python tests/instruction_sets.py [NAME ...]`.

oneDNN, PyTorch's own kernels and MKL choose code by the processor's instructions; their environment variables exclude
some of them, MKL's on Intel's processors only. A set that the processor lacks is named, and run with a smaller one.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "pytest", "-q", "-m", "numerical")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionSet:
    """Instructions that libraries may use.

    Attributes:
        environ: variables that limit them to it.
        flag: processor flag that it requires, as Linux names it; empty requires none.
    """

    environ: Mapping[str, str]
    flag: str = ""


SETS = {
    "SSE41": InstructionSet(
        environ={"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}, flag="sse4_1"
    ),
    "AVX2": InstructionSet(
        environ={"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        flag="avx2",
    ),
    "AVX512_CORE_BF16": InstructionSet(environ={"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, flag="avx512_bf16"),
    "ATEN_AVX2": InstructionSet(environ={"ATEN_CPU_CAPABILITY": "avx2"}, flag="avx2"),
    "default": InstructionSet(environ={}),
}


def main() -> int:
    """Returns 1 where tests failed with some set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SETS)}; all by default")
    names: list[str] = parser.parse_args().names or list(SETS)
    if unknown := [name for name in names if name not in SETS]:
        parser.error(f"unknown instruction set {unknown[0]}; choose of {', '.join(SETS)}")
    failed = run_all(names, processor_flags(), lambda environ: subprocess.call(COMMAND, cwd=ROOT, env=dict(environ)))
    if failed:
        print(f"failed with: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run_all(names: list[str], flags: frozenset[str], run: Callable[[Mapping[str, str]], int]) -> list[str]:
    """Runs the tests with each set and returns the names of those they failed with.

    Args:
        names: keys of `SETS`.
        flags: of the processor.
        run: runs the tests in an environment and returns their exit code.
    """
    failed: list[str] = []
    limits = {variable for each in SETS.values() for variable in each.environ}
    free = {variable: value for variable, value in os.environ.items() if variable not in limits}
    for name in names:
        chosen = SETS[name]
        lacks = chosen.flag and chosen.flag not in flags
        note = f" (this processor lacks {chosen.flag}: libraries fall back to what it has)" if lacks else ""
        print(f"numerical tests, {name}{note}", flush=True)
        if run(free | dict(chosen.environ)):
            failed.append(name)
    return failed


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns the processor's flags, as Linux names them; empty where they cannot be read."""
    if platform.machine() not in ("x86_64", "AMD64") or not cpuinfo.exists():
        return frozenset()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


if __name__ == "__main__":
    sys.exit(main())
