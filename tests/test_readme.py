"""The README says what is true: figures equal their JSON, every target exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| [^|]+ \| ([\d.]+) (\S+) \| [^|]+ \| `(\w+\.json): ([\w. ]+)` \|$", flags=re.MULTILINE)
CARD = (ROOT / "engine/dgemma_engine/embedded/README.md").read_text(encoding="utf-8")
PERFORMANCE = (ROOT / "docs/PERFORMANCE.md").read_text(encoding="utf-8")
FIGURES = ROW.findall(README) + ROW.findall(CARD) + ROW.findall(PERFORMANCE)


def test_figures_are_found() -> None:
    assert len(ROW.findall(README)) >= 8
    assert len(ROW.findall(CARD)) >= 9
    assert len(ROW.findall(PERFORMANCE)) >= 20


@pytest.mark.parametrize(("value", "unit", "file", "key"), FIGURES)
def test_figure_is_the_one_measured(value: str, unit: str, file: str, key: str) -> None:
    found = json.loads((ROOT / "engine/bench/results" / file).read_text(encoding="utf-8"))
    for part in key.split("."):
        found = found[part]
    assert found == float(value), f"{key} in {file}, {unit}"


@pytest.mark.parametrize("path", sorted((ROOT / "engine/bench/results").glob("*.json")), ids=lambda path: path.stem)
def test_result_names_its_conditions(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert {"cpu", "cores", "gpu", "torch", "commit", "date"} <= result.keys()
    assert not result["commit"].endswith("-dirty"), "measured on a commit that anyone can check out"


def test_every_file_of_the_neovim_plugin_is_named_and_says_what_it_is() -> None:
    plugin = ROOT / "editors/neovim"
    tree = (plugin / "README.md").read_text(encoding="utf-8")
    for path in sorted(plugin.glob("lua/dgemma/*.lua")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert re.search(rf"^  {re.escape(path.name)} ", tree, flags=re.MULTILINE), path.name
        assert lines[0].startswith("--- "), path.name
        assert max(map(len, lines)) <= 120, path.name


def test_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
