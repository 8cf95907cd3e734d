"""Time to plan the published checkpoints before a weight is read: at full size, in sparse files.

Key lists and files of zeros are those of the tests (`tests/published`). Each layout is opened anew in each round, as
`dgemma-engine plan` does; times are processor time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[3]))  # where the tests lie

import record
import torch
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.diffusion_gemma import DiffusionGemmaFamily
from dgemma_engine.families.family import PlanOptions

from tests.published.key_lists import LAYOUTS, read_list
from tests.published.sparse_files import has_sparse_files, write_folder, write_gguf_file

TARGET_S = 2.0


def main() -> None:
    """Measures and writes `open_published.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    layouts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if not has_sparse_files(Path(folder)):
            raise SystemExit(f"{folder}: this file system has no sparse files; set TMPDIR to a folder on one that has")
        for layout in LAYOUTS:
            tensors = read_list(layout)
            path = Path(folder) / layout
            if layout.startswith("gguf"):
                path = write_gguf_file(path.with_suffix(".gguf"), tensors)
            else:
                write_folder(path, layout, tensors)
            times = [planned(path) for _ in range(args.rounds + 1)][1:]
            layouts[layout] = {"tensors": len(tensors), "plan_s": round(statistics.median(times), 3)}
    slowest = max(layout["plan_s"] for layout in layouts.values())
    record.write(
        "open_published",
        {"rounds": args.rounds, "target_s": TARGET_S, "slowest_s": slowest, "layouts": layouts},
        args.out,
    )


def planned(path: Path) -> float:
    """Returns the seconds of processor time that planning a checkpoint takes."""
    started = time.process_time()
    facts = read_facts(path)
    options = PlanOptions(device=torch.device("cpu"), weight_format=None, context_tokens=None)
    DiffusionGemmaFamily().plan(facts, options)
    return time.process_time() - started


if __name__ == "__main__":
    main()
