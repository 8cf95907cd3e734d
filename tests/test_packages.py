"""Metadata of the packages: licences of all dependencies, and one version everywhere."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_OF_THIS_PROJECT = "dgemma-lsp"
# They test and build; no package of ours needs them.
_TOOLS = {"dev", "editors"}


def test_licences_of_all_dependencies_are_named() -> None:
    extras = {name: wanted for name, wanted in PROJECT["optional-dependencies"].items() if name not in _TOOLS}
    wanted = [*PROJECT["dependencies"], *(one for group in extras.values() for one in group)]
    names = {re.split(r"[^\w.-]", one)[0] for one in wanted} - {_OF_THIS_PROJECT}
    listed = (ROOT / "docs/THIRD_PARTY.md").read_text(encoding="utf-8")
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b(?!-)", listed)} == set()
    assert "docs/THIRD_PARTY.md" in PROJECT["license-files"]


def test_wheel_is_described_for_an_index() -> None:
    assert (ROOT / PROJECT["readme"]).read_text(encoding="utf-8").startswith(f"# {PROJECT['name']}\n")
    assert PROJECT["license"] == "Apache-2.0"
    assert {"language-server", "code-completion"} <= set(PROJECT["keywords"])
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {oldest}" in PROJECT["classifiers"]
    # The license expression replaces classifiers; an index refuses a package with both.
    assert not any(one.startswith("License ::") for one in PROJECT["classifiers"])


def test_all_artefacts_have_one_version() -> None:
    version = PROJECT["version"]
    extension = ROOT / "editors/vscode"
    lock = json.loads((extension / "package-lock.json").read_text(encoding="utf-8"))
    assert json.loads((extension / "package.json").read_text(encoding="utf-8"))["version"] == version
    assert (lock["version"], lock["packages"][""]["version"]) == (version, version)
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None and first[1] == version
