"""The table of GPU figures in docs/PERFORMANCE.md, written from `results/gpu.json` between its two markers.

python engine/bench/gpu_table.py [--result FILE] [--readme FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- gpu figures: written by engine/bench/gpu_table.py -->", "<!-- end of gpu figures -->"
OPEN = "Open: no GPU figures yet. `make bench-gpu` measures them where there is a GPU."
GIB = 2**30


def main() -> int:
    """Returns 1 where the page has no place for the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=HERE / "results/gpu.json")
    parser.add_argument("--readme", type=Path, default=HERE.parents[1] / "docs/PERFORMANCE.md")
    args = parser.parse_args()
    text = args.readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        print(f"{args.readme}: lacks the line {BEGIN} or {END}", file=sys.stderr)
        return 1
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    result = json.loads(args.result.read_text(encoding="utf-8")) if args.result.exists() else None
    args.readme.write_text(f"{before}{section(result)}{after}", encoding="utf-8")
    return 0


def section(result: dict[str, Any] | None) -> str:
    """Returns the markers with the table between them, or that there is none yet."""
    if result is None:
        return f"{BEGIN}\n{OPEN}\n{END}"
    conditions = (
        f"One {result['gpu']}, random weights of the released model's size, torch {result['torch']}, triton "
        f"{result['triton']}, commit {result['commit']}, {result['date']}; `engine/bench/results/gpu.json`."
    )
    head = "| case | format | ms per step | tokens/s | steps | canvas | prompt | peak GiB | x transformers |"
    rows = [line(entry) for entry in result["results"] if not entry["case"].startswith("component ")]
    failed = [f"Failed: {one['case']} {one['format']}".rstrip() + "." for one in result["failed"]]
    table = [head, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *rows]
    return "\n".join([BEGIN, conditions, "", *table, *([""] if failed else []), *failed, END])


def line(entry: dict[str, Any]) -> str:
    """Returns one row of the table."""
    peak = entry["peak_bytes"]
    values = [
        entry["case"], entry["format"], entry["ms_per_step"], entry["tokens_per_s"], entry["steps"], entry["canvas"],
        entry["prompt_tokens"], round(peak / GIB, 2) if peak else None, entry["ratio_to_transformers"],
    ]  # fmt: skip
    return f"| {' | '.join('' if value is None else str(value) for value in values)} |"


if __name__ == "__main__":
    sys.exit(main())
