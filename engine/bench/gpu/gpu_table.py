"""The tables of GPU figures in docs/PERFORMANCE.md, one for each `results/gpu_<card>.json`, between two markers.

python engine/bench/gpu/gpu_table.py [--results FOLDER] [--readme FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[1]
BEGIN, END = "<!-- gpu figures: written by engine/bench/gpu/gpu_table.py -->", "<!-- end of gpu figures -->"
OPEN = "Open: no GPU figures yet. `make gpu-report` measures them where there is a GPU."
GIB = 2**30
CONDITIONS = ("torch", "triton", "commit", "date")


def main() -> int:
    """Returns 1 where the page has no place for the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--readme", type=Path, default=BENCH.parents[1] / "docs/PERFORMANCE.md")
    args = parser.parse_args()
    text = args.readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        print(f"{args.readme}: lacks the line {BEGIN} or {END}", file=sys.stderr)
        return 1
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    args.readme.write_text(f"{before}{section(reports(args.results))}{after}", encoding="utf-8")
    return 0


def reports(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the content of the reports of real cards, by file name."""
    paths = [path for path in sorted(folder.glob("gpu_*.json")) if path.name != "gpu_tiny.json"]
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def section(found: dict[str, dict[str, Any]]) -> str:
    """Returns the markers with a table for each report between them, or that there is none yet."""
    tables = "\n\n".join(table(name, result) for name, result in found.items())
    return f"{BEGIN}\n{tables or OPEN}\n{END}"


def table(name: str, result: dict[str, Any]) -> str:
    """Returns one card's table under the conditions it was measured in."""
    stamps = [case["stamp"] for case in result["cases"].values() if case["state"] == "passed"]
    values = {key: ", ".join(sorted({str(stamp[key]) for stamp in stamps})) for key in CONDITIONS}
    conditions = (
        f"One {result['gpu']}, random weights of the released model's size, torch {values['torch']}, triton "
        f"{values['triton']}, commit {values['commit']}, {values['date']}; `engine/bench/results/{name}`."
    )
    head = "| case | format | ms per step | tokens/s | steps | canvas | prompt | peak GiB | x transformers |"
    rows = [line(entry) for entry in result["results"] if not entry["case"].startswith("component ")]
    failed = [f"Failed: {one['part']}: {one['case']} {one['format']}".rstrip() + "." for one in result["failed"]]
    lines = [head, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *rows]
    return "\n".join([conditions, "", *lines, *([""] if failed else []), *failed])


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
