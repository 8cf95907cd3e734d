"""Numbers in docs/KERNELS.md equal those in the roofline's JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\S+) \| .* \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\w+) \|$", re.MULTILINE)


def test_roofline_is_the_one_computed() -> None:
    result = json.loads((ROOT / "kernels/bench/results/roofline.json").read_text(encoding="utf-8"))
    assert not result["commit"].endswith("-dirty")
    found = ROW.findall((ROOT / "docs/KERNELS.md").read_text(encoding="utf-8"))
    fields = ("name", "calls", "megabytes", "gigaflops", "floor_us", "floor_ms_per_step", "bound")
    assert found == [tuple(str(record[field]) for field in fields) for record in result["results"]]


def test_number_of_compiled_cases_is_the_one_recorded() -> None:
    result = json.loads((ROOT / "kernels/bench/results/cross_compile.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs/KERNELS.md").read_text(encoding="utf-8")
    assert f"with triton {result['triton']}: {len(result['results'])} compiled cases" in text
