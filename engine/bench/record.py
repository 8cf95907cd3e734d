"""The fields of every benchmark result (hardware, date, commit) and the folder it is written to.

Documents and their tests read `results/`, which is committed. So a benchmark writes to `measured/`, which git ignores,
unless it is run with `--record`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dgemma_engine.tools.evaluation.provenance import provenance

HERE = Path(__file__).parent
MEASURED, RESULTS = HERE / "measured", HERE / "results"


def add_destination(parser: argparse.ArgumentParser) -> None:
    """Adds the options that set `out`, the folder for `write`."""
    parser.add_argument("--out", type=Path, default=MEASURED, help=f"folder of the result; default: {MEASURED}")
    parser.add_argument(
        "--record", dest="out", action="store_const", const=RESULTS, help=f"write to {RESULTS}, which documents quote"
    )


def environment() -> dict[str, Any]:
    """Returns hardware, versions, commit and date."""
    import torch

    return provenance("cuda" if torch.cuda.is_available() else "cpu")


def write(name: str, result: dict[str, Any], folder: Path) -> None:
    """Writes `folder/name.json` and prints the result as the last line."""
    whole = {"benchmark": name, **environment(), **result}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(whole))


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the value below which `share` of `values` lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(times_ms: Sequence[float], *, middle: str = "p50_ms", prefix: str = "", digits: int = 2) -> dict[str, Any]:
    """Returns median and 95th percentile of times, None where there are none.

    Args:
        times_ms: the times.
        middle: name of the median in the result.
        prefix: of both names.
        digits: after the decimal point.
    """
    p50 = round(statistics.median(times_ms), digits) if times_ms else None
    p95 = round(quantile(times_ms, 0.95), digits) if times_ms else None
    return {f"{prefix}{middle}": p50, f"{prefix}p95_ms": p95}
