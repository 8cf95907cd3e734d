"""Where a result is written: `measured/`, which git ignores, or with `--record` `results/`, which documents quote."""

from __future__ import annotations

import argparse
from pathlib import Path

MEASURED, RESULTS = Path(__file__).parent / "measured", Path(__file__).parent / "results"


def add_record(parser: argparse.ArgumentParser) -> None:
    """Adds the option that sets `out`, the folder of the result."""
    parser.add_argument(
        "--record",
        dest="out",
        action="store_const",
        const=RESULTS,
        default=MEASURED,
        help=f"write to {RESULTS}, which documents quote, not to {MEASURED}",
    )
