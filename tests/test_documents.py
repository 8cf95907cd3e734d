"""Documents are correct: quoted figures equal their JSON, make targets and links exist, the README stays short."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "engine/bench/results").glob("*.json"))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "engine/bench/documents")
    return importlib.import_module("figures")


def test_quoted_figures_are_the_measured_ones(figures: ModuleType) -> None:
    for document in figures.DOCUMENTS:
        found = list(figures.quoted(document))
        assert len(found) >= (3 if document.startswith("docs/decisions/") else 8), document
        assert [figure for figure in found if float(figure.quoted) != figure.measured] == []


def test_make_figures_rewrites_a_stale_value_and_nothing_else(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for document in figures.DOCUMENTS:
        (tmp_path / document).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / document, tmp_path / document)
    first = next(figures.quoted("README.md"))
    (tmp_path / "README.md").write_text(README.replace(f"| {first.quoted} ", "| 12345.6 ", 1), encoding="utf-8")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures.py", "--check"])
    assert figures.main() == 1
    monkeypatch.setattr(sys, "argv", ["figures.py"])
    assert figures.main() == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == README


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_names_its_conditions(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert {"cpu", "cores", "gpu", "torch", "commit", "date"} <= result.keys()
    assert not result["commit"].endswith("-dirty"), "measured on a commit that anyone can check out"


def test_every_file_of_the_neovim_plugin_is_named_and_opens_with_its_contract() -> None:
    plugin = ROOT / "editors/neovim"
    tree = (plugin / "README.md").read_text(encoding="utf-8")
    for path in sorted(plugin.glob("lua/dgemma/*.lua")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert re.search(rf"^  {re.escape(path.name)} ", tree, flags=re.MULTILINE), path.name
        assert lines[0].startswith("--- "), path.name
        assert max(map(len, lines)) <= 120, path.name


def test_documents_name_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        named = set(
            re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        )
        assert {one or other for one, other in named} - {""} <= targets, path


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_sizing_table_of_a_team_is_that_of_the_roofline() -> None:
    together = json.loads((ROOT / "kernels/bench/results/roofline.json").read_text())["together"]
    text = (ROOT / "docs/OPERATING.md").read_text(encoding="utf-8")
    rows = {"bf16 (`plain`)": "plain", "fp8": "fp8", "int4": "int4"}
    for title, kind in rows.items():
        floors = [str(together[kind]["100"][number]["floor_ms_per_step"]) for number in ("1", "2", "4", "8")]
        assert f"| {title} | {' | '.join(floors)} |\n" in text


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_paths_of_the_code_map_exist() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    folders = [ROOT / name for name in (".", "dgemma_lsp", "engine/dgemma_engine", "kernels/dgemma_kernels")]
    paths = re.findall(r"`(\w[\w/.]*(?:/|\.py))`", text)
    assert [path for path in paths if not any((folder / path).exists() for folder in folders)] == []
