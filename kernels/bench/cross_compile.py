"""Compiles every kernel at full size for cards that are not here, and records registers, spills and instructions.

`python kernels/bench/cross_compile.py --record` writes `results/cross_compile.json`, without `--record` one in
`measured/`; `--quick` compiles one case per kernel and prints only. It fails where a kernel spills registers or asks
for more shared memory than a multiprocessor has. It does not show how fast a kernel is.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import full_size
import torch
import triton
from dgemma_kernels.launch import launch_table
from machine_code import WARP, described, disassembled, inner_loop
from recorded_launch import Launch, record
from result_folder import add_record

# Bytes of shared memory that one program may have.
LIMITS = {90: 232448, 89: 101376, 120: 101376}


def main() -> int:
    """Returns 1 where a kernel does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one case per kernel, nothing written")
    parser.add_argument("--architectures", type=int, nargs="+", default=list(LIMITS), choices=list(LIMITS))
    parser.add_argument("--only", default="", help="only cases whose name begins with this text, nothing written")
    add_record(parser)
    options = parser.parse_args()
    named = [case for case in full_size.cases() if case.name.startswith(options.only)]
    chosen = [case for case in named if case.quick or not options.quick]
    results = [result for architecture in options.architectures for result in compile_all(chosen, architecture)]
    faults = [fault for result in results for fault in faults_of(result)]
    if not options.quick and not options.only:
        write(results, options.out)
    for result in results:
        print(json.dumps(result))
    for fault in faults:
        print(f"does not fit: {fault}", file=sys.stderr)
    print(json.dumps({"compiled": len(results), "faults": len(faults)}))
    return 1 if faults else 0


def compile_all(cases: list[full_size.Case], architecture: int) -> list[dict[str, Any]]:
    """Returns one record for each different kernel that the cases launch."""
    table = launch_table.read(f"sm_{architecture}")
    records: list[dict[str, Any]] = []
    for case in cases:
        call = case.prepare(torch.device("meta"))
        for part, launch in enumerate(record(lambda call=call: call(table))):
            compiled, log = launch.compile(architecture)
            print(f"sm_{architecture} {case.name} {launch.name}", file=sys.stderr)
            records.append(
                {
                    "case": case.name,
                    "part": part,
                    "kernel": launch.name,
                    "sm": architecture,
                    "num_programs": launch.num_programs,
                    **described(compiled, log),
                    "shared_limit_bytes": LIMITS[architecture],
                    **per_weight(launch, disassembled(compiled)),
                }
            )
    return records


def per_weight(launch: Launch, sass: str) -> dict[str, Any]:
    """Returns what the inner loop of a matrix kernel costs: SASS instructions of all threads by weights decoded.

    A weight that several tiles of tokens need is decoded for each of them.
    """
    loop = inner_loop(sass)
    if loop is None:
        return {}
    found: dict[str, Any] = {
        "loop_instructions": loop.instructions,
        "loop_matrix_instructions": loop.matrix_instructions,
        "loop_waits": loop.waits,
    }
    if launch.name in ("experts_kernel", "linear_kernel"):
        arguments = launch.arguments
        weights = arguments["BLOCK_N"] * arguments["BLOCK_K"] * (2 if arguments.get("GATED") else 1)
        threads = launch.options["num_warps"] * WARP
        usual = loop.instructions - loop.skipped_instructions
        found["instructions_per_weight"] = round(usual * threads / weights, 2)
    return found


def faults_of(result: dict[str, Any]) -> list[str]:
    """Returns a sentence for each limit that a kernel exceeds."""
    where = f"{result['case']} part {result['part']} on sm_{result['sm']}"
    faults: list[str] = []
    if result["spill_store_bytes"] != 0 or result["spill_load_bytes"] != 0:
        faults.append(f"{where} spills {result['spill_store_bytes']} bytes")
    if result["shared_bytes"] > result["shared_limit_bytes"]:
        faults.append(f"{where} needs {result['shared_bytes']} bytes of shared memory")
    return faults


def write(results: list[dict[str, Any]], folder: Path) -> None:
    """Writes the JSON with the versions of the compilers."""
    from dgemma_engine.tools.evaluation.provenance import provenance

    whole = {
        "benchmark": "cross_compile",
        **provenance("cpu"),
        "triton": triton.__version__,
        "instructions": "SASS of the innermost loop with matrix instructions, all threads",
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cross_compile.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
