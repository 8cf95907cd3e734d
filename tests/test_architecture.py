"""The rules of docs/ARCHITECTURE.md that the import contracts in pyproject.toml and the linter cannot state."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER, ENGINE, KERNELS = (ROOT / name for name in ("dgemma_lsp", "engine/dgemma_engine", "kernels/dgemma_kernels"))
MODULES = sorted(path for package in (SERVER, ENGINE, KERNELS) for path in package.rglob("*.py"))
BENCHMARKS = sorted(path for folder in ("engine/bench", "kernels/bench") for path in (ROOT / folder).rglob("*.py"))
TORCH_FREE = ("torch", "triton", "transformers", "tokenizers", "safetensors", "numpy")
MAX_LINES, MAX_MODULES = 300, 16


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "module",
    [
        "dgemma_lsp.server",
        "dgemma_lsp.server.app",
        "dgemma_lsp.cli",
        "dgemma_engine.ipc.client",
        "dgemma_engine.http_api.app",
        "dgemma_engine.cli",
    ],
)
def test_import_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {TORCH_FREE!r} if m in sys.modules])"
    path = os.pathsep.join(str(ROOT / folder) for folder in (".", "engine", "kernels"))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert result.stdout.strip() == "[]"


def test_jit_functions_live_in_private_kernel_files() -> None:
    holders = {path for path in MODULES if "triton.jit" in path.read_text(encoding="utf-8")}
    assert holders
    assert {name_of(path) for path in holders if path.parent != KERNELS / "ops" or path.name[0] != "_"} == set()


def test_every_launcher_has_a_reference_of_the_same_name() -> None:
    launchers = [path for path in (KERNELS / "ops").glob("*.py") if path.name[0] != "_"]
    assert launchers
    for path in launchers:
        assert path.with_name(f"_{path.name}").exists()
        operations = {name for name, text in functions(path).items() if name[0] != "_" and "launch(" in text}
        assert operations and operations <= functions(KERNELS / "reference" / path.name).keys(), name_of(path)


def functions(path: Path) -> dict[str, str]:
    """Returns the source of each function at the top of a file, by name."""
    text = path.read_text(encoding="utf-8")
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(text, node) or "" for node in nodes}


def test_one_thread_touches_the_device() -> None:
    """Only one thread may run the model; those of launcher, downloads and Ray merely wait."""
    starting = {
        path.name
        for path in ENGINE.rglob("*.py")
        if "tools" not in path.parts
        and any(word in path.read_text(encoding="utf-8") for word in ("threading.Thread(", "PoolExecutor("))
    }
    assert starting == {"device_thread.py", "launcher.py", "pip_download.py", "ray_connection.py"}


def test_no_mutable_module_state() -> None:
    """A module-level name in lower case is state; constants are upper case, loggers excepted."""
    state = set[str]()
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            names -= {"__all__", "__version__", "logger", "_log"}
            state |= {f"{name_of(path)}: {name}" for name in names if not name.lstrip("_")[0].isupper()}
    assert state == set()


def test_modules_are_short() -> None:
    long = {name_of(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES}
    assert long == set()


def test_modules_are_named_for_a_noun() -> None:
    vague = {"utils", "helpers", "common", "misc", "base"}
    assert {name_of(path) for path in MODULES + BENCHMARKS if path.stem in vague} == set()


def test_folders_hold_at_most_16_modules() -> None:
    folders = [path.parent for path in MODULES + BENCHMARKS if path.name != "__init__.py"]
    assert {name_of(folder) for folder in folders if folders.count(folder) > MAX_MODULES} == set()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: tracked files were not looked at")
def test_top_level_is_what_the_page_says() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.partition("/")[0] for line in tracked.splitlines()}
    allowed = {
        "dgemma_lsp", "engine", "kernels", "editors", "tests", "docs", "pyproject.toml", "README.md", "CHANGELOG.md",
        "LICENSE", "Makefile", ".ci", ".gitignore", ".gitattributes",
    }  # fmt: skip
    assert top <= allowed
