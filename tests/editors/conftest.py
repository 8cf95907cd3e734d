"""Tests in real editors: everything below this folder, run by `make test-editors` and by nothing else.

The tests carry the marker `editors`, which is deselected by default. The editors lie in `.editors/`. Without the Python
packages of the extra `editors` nothing is collected.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.get_chromium import get_chromium

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NEEDS = {"neovim": "pynvim", "vscode": "playwright"}

collect_ignore = [folder for folder, package in NEEDS.items() if importlib.util.find_spec(package) is None]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests below this folder, before pytest selects by marker."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.editors)


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Chromium, installed if need be; without it these tests fail, because they run on request only."""
    return get_chromium()


@pytest.fixture(scope="session")
def runtime() -> Iterator[Path]:
    """The directory of the engines that the editors under test start; every engine in it is ended with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="e-"))
    yield folder
    for process in engines(folder):
        process.kill()
        process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def editor_environment(runtime: Path) -> dict[str, str]:
    """The environment of an editor under test: this checkout's packages, engines of the tests' own, one thread."""
    packages = [ROOT, ROOT / "engine", ROOT / "kernels"]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "DGEMMA_RUNTIME_DIR": str(runtime),
        "OMP_NUM_THREADS": "1",
    }


def engines(runtime: Path) -> list[psutil.Process]:
    """Returns the engine processes that serve from `runtime`."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if "dgemma_engine" in process.cmdline() and process.environ().get("DGEMMA_RUNTIME_DIR") == str(runtime):
                found.append(process)
        except psutil.Error:
            continue
    return found
