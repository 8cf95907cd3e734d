"""Products with weights of a GGUF file as they are stored against expanding each matrix and then multiplying, one run.

The matrices are those of the big model's experts, gate and up side by side, more than fit into the caches. Each round
multiplies every matrix once in each way, in turn; times are processor time of one matrix, all threads together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
import torch.nn.functional as F
from dgemma_engine.model.devices import limit_threads, weight_dtype
from dgemma_engine.quantization.block_layers import BlockMatrix, StoredMatrix, pack_blocks
from dgemma_engine.quantization.ggml_types import TENSOR_TYPES
from torch import Tensor

TARGET = 1.2
SHAPES = {"gate and up": (1_408, 2_816), "down": (2_816, 704)}
# The types that such a file gives each, by ggml's numbers, with the offset and the size of each 16-bit scale.
KINDS = {
    "Q4_K": ("gate and up", 12, {0: 6e-4, 2: 45e-4}),
    "Q5_0": ("down", 6, {0: 1e-2}),
    "Q8_0": ("down", 8, {0: 2e-3}),
}
ROWS = (1, 4, 16, 32, 64, 256)


def main() -> None:
    """Measures and writes `gguf_products.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--matrices", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    threads, dtype = limit_threads(os.environ), weight_dtype(torch.device("cpu"))
    cases: list[dict[str, Any]] = []
    for name, (shape, number, scales) in KINDS.items():
        stored = [_random(SHAPES[shape], number, scales, seed) for seed in range(args.matrices)]
        packed = [pack_blocks(name, one.blocks_OBb) for one in stored]
        for num_rows in ROWS:
            cases.append({"type": name, "matrix": shape, "rows": num_rows, "kept_as": type(packed[0]).__name__})
            cases[-1] |= compared(stored, packed, num_rows, dtype, args.rounds)
    result = {
        "threads": threads,
        "dtype": str(dtype).removeprefix("torch."),
        "matrices": args.matrices,
        "rounds": args.rounds,
        "target": TARGET,
        "least_q4_k_ratio": min(case["ratio"] for case in cases if case["type"] == "Q4_K"),
        "cases": cases,
    }
    record.write("gguf_products", result, args.out)


def compared(
    stored: list[StoredMatrix], packed: list[BlockMatrix], num_rows: int, dtype: torch.dtype, rounds: int
) -> dict[str, float]:
    """Returns milliseconds of a matrix in both ways, and how many times as fast the first is."""
    num_outputs, num_inputs = len(stored[0].blocks_OBb), stored[0].rows(0, 1).shape[1]
    x_NI = torch.randn(num_rows, num_inputs).to(dtype)
    buffer_OI = torch.empty(num_outputs, num_inputs, dtype=dtype)
    step = max(1, 2**17 // num_inputs)

    def expanded(matrix: StoredMatrix) -> Tensor:
        for start in range(0, num_outputs, step):
            buffer_OI[start : start + step] = matrix.rows(start, start + step)
        return F.linear(x_NI, buffer_OI)

    ways: list[Callable[[], object]] = [
        lambda: [matrix(x_NI) for matrix in packed],
        lambda: [expanded(matrix) for matrix in stored],
    ]
    times: list[list[float]] = [[], []]
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for way, seen in zip(ways, times, strict=True):
                started = time.process_time()
                way()
                seen.append((time.process_time() - started) / len(packed) * 1e3)
    as_stored, then = (statistics.median(seen[1:]) for seen in times)
    return {"stored_ms": round(as_stored, 3), "expanded_ms": round(then, 3), "ratio": round(then / as_stored, 2)}


def _random(shape: tuple[int, int], number: int, scales: dict[int, float], seed: int) -> StoredMatrix:
    kind = TENSOR_TYPES[number]
    generator = torch.Generator().manual_seed(seed)
    size = (shape[0], shape[1] // kind.block_values, kind.block_bytes)
    blocks = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    for offset, scale in scales.items():
        halves = (scale * (0.8 + 0.4 * torch.rand(*size[:2], 1, generator=generator))).half()
        blocks[..., offset : offset + 2] = halves.view(torch.uint8)
    return StoredMatrix(type_name=kind.name, blocks_OBb=blocks)


if __name__ == "__main__":
    main()
