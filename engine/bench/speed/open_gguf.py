"""How long opening a GGUF file takes before its weights are read: header and tokenizer, in processor time.

Each round maps the file anew and builds the tokenizer from its metadata; weights stay mapped. The `gguf` package's own
reader opens the same file beside that, where it is installed. The file's pages are in memory after the first round,
which is not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.tokenization.gguf_tokenizer import read_tokenizer

TARGET_MS = 300.0


def main() -> None:
    """Measures and writes `open_gguf.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--model", default="small", help="GGUF file or short name of one (default: small)")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    path = model_folder(args.model)
    file = GgufFile(path)
    result: dict[str, Any] = {
        "model": path.name,
        "tokens": len(file.strings("tokenizer.ggml.tokens")),
        "tensors": len(file.tensors),
        "rounds": args.rounds,
        "target_ms": TARGET_MS,
        "header_ms": measured(lambda: GgufFile(path), args.rounds),
        "tokenizer_ms": measured(lambda: read_tokenizer(file), args.rounds),
        "open_ms": measured(lambda: read_tokenizer(GgufFile(path)), args.rounds),
    }
    if importlib.util.find_spec("gguf") is not None:
        from gguf import GGUFReader

        result["gguf_package_ms"] = measured(lambda: GGUFReader(path), 2)
    record.write("open_gguf", result, args.out)


def measured(work: Callable[[], object], rounds: int) -> dict[str, float]:
    """Returns median and 95th percentile of the milliseconds of processor time, all threads together."""
    times: list[float] = []
    for _ in range(rounds + 1):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * 1e3)
    return {"p50": round(statistics.median(times[1:]), 1), "p95": round(record.quantile(times[1:], 0.95), 1)}


if __name__ == "__main__":
    main()
