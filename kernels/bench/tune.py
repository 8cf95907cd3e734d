"""Measures launch parameters on the GPU at hand and writes a table named for it; run offline, never while serving.

`python kernels/bench/tune.py` tries, kernel by kernel, the entries of `candidates` on the shapes of DiffusionGemma 26B
with random numbers, takes the fastest that compiles and fits, and writes
`kernels/dgemma_kernels/launch_tables/<card>.json`. Not tried on a GPU yet.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping

import full_size
import torch
from dgemma_kernels import launch_table
from dgemma_kernels.launch_table import LaunchTable
from triton import runtime

REPEATS = 20
CHOICES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "norm": {"num_warps": (4, 8)},
    "norm_rotary": {"num_warps": (1, 2)},
    "gated_gelu": {"num_warps": (4, 8)},
    "route": {"BLOCK_ROWS": (16, 32), "BLOCK_K": (64, 128), "num_warps": (4, 8)},
    "experts_up": {"BLOCK_K": (64, 128, 256), "num_stages": (2, 3, 4)},
    "experts_down": {"BLOCK_N": (64, 128), "BLOCK_K": (64, 128), "num_warps": (4, 8), "num_stages": (2, 3, 4)},
    "linear": {
        "BLOCK_N": (64, 128),
        "BLOCK_T": (64, 128, 256),
        "BLOCK_K": (64, 128),
        "num_warps": (4, 8),
        "num_stages": (3, 4),
    },
    "attention": {"BLOCK_M": (32, 64, 128), "BLOCK_S": (16, 32, 64), "num_warps": (4, 8), "num_stages": (1, 2, 3)},
    "vocabulary": {"BLOCK": (2048, 4096, 8192), "num_warps": (4, 8)},
    "soft_embeddings": {"BLOCK_D": (128, 256), "NUM_SPLITS": (4, 6, 12), "num_stages": (3, 4)},
}
# The call that an entry of the table is judged by.
JUDGES = {
    "norm": "merge_norm",
    "norm_rotary": "norm_rotary.256",
    "gated_gelu": "gated_gelu",
    "route": "route.canvas",
    "linear.plain": "linear.plain.qkv_sliding",
    "linear.fp8": "linear.fp8.qkv_sliding",
    "linear.int8": "linear.int8.qkv_sliding",
    "linear.int4": "linear.int4.qkv_sliding",
    "linear.nvfp4": "linear.nvfp4.qkv_sliding",
    "attention.256": "attention.canvas.256",
    "attention.512": "attention.canvas.512",
    "vocabulary": "believe",
    "soft_embeddings": "soft_embeddings",
}


def candidates(kernel: str, entry: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yields the table's own entry, then every combination of the kernel's choices."""
    yield dict(entry)
    choices = CHOICES.get(kernel.partition(".")[0], {})
    for values in itertools.product(*choices.values()):
        changed = {**entry, **dict(zip(choices, values, strict=True))}
        if changed != dict(entry):
            yield changed


def judge(kernel: str) -> str | None:
    """Returns the case that measures a kernel, or None for one that is not tuned."""
    if kernel.startswith("experts_"):
        _, weight_format, *size = kernel.split(".")
        return f"experts.{weight_format}.{'prompt' if size else 'canvas'}"
    return JUDGES.get(kernel)


def best(kernel: str, table: LaunchTable, measure: Callable[[LaunchTable], float]) -> dict[str, int]:
    """Returns the fastest entry; one that does not compile or fit is not among them.

    Args:
        kernel: entry to choose.
        table: where the other entries come from.
        measure: seconds, or raises what the compiler or the driver raise.
    """
    fastest: tuple[float, dict[str, int]] | None = None
    for entry in candidates(kernel, table.of(kernel)):
        trial = LaunchTable(name=table.name, measured=True, entries={**table.entries, kernel: entry})
        try:
            seconds = measure(trial)
        except (runtime.errors.OutOfResources, RuntimeError, ValueError, AssertionError):
            continue
        if fastest is None or seconds < fastest[0]:
            fastest = (seconds, entry)
    return dict(table.of(kernel)) if fastest is None else fastest[1]


def measured(call: full_size.Call, table: LaunchTable) -> float:
    """Returns the median seconds of a call on the GPU."""
    call(table)
    seconds: list[float] = []
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call(table)
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return statistics.median(seconds)


def main() -> int:
    """Returns 1 where there is no GPU to measure on."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not torch.cuda.is_available():
        print("tune.py measures on the GPU at hand, and there is none", file=sys.stderr)
        return 1
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    table = launch_table.choose(name, capability)
    by_name = {case.name: case for case in full_size.cases()}
    for kernel in table.entries:
        case = by_name.get(judge(kernel) or "")
        if case is not None:
            call = case.prepare(torch.device("cuda"))
            entry = best(kernel, table, lambda trial, call=call: measured(call, trial))
            table = LaunchTable(name=name, measured=True, entries={**table.entries, kernel: entry})
            print(json.dumps({"kernel": kernel, **entry}))
    path = launch_table.FOLDER / f"{launch_table.file_name(name)}.json"
    content = {"measured": True, "gpu": name, "entries": table.entries}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
