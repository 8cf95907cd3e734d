"""Fixtures of all tests."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian_packages import ProgramMissingError
from tests.get_chromium import get_chromium

if "PYTEST_XDIST_WORKER" in os.environ:
    # One process for each core: threads of torch would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Chromium, installed if need be; every fixture that starts a browser takes it from here."""
    try:
        return get_chromium()
    except ProgramMissingError as error:
        pytest.skip(f"not tried in a browser: {error}")


@pytest.fixture(scope="session", autouse=True)
def own_homes() -> Iterator[None]:
    """Keeps the user's statistics and fetched models out of the tests, so that `tiny` answers."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
            patch.setitem(os.environ, name, str(Path(folder) / name.lower()))
        yield


@pytest.fixture(autouse=True)
def own_log_levels() -> Iterator[None]:
    """Restores the levels of loggers, which a server in the tests' own process sets."""
    loggers = [logging.getLogger(name) for name in (None, "pygls", "dgemma_lsp", "dgemma_engine")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A new folder with a short name: sockets live in it, and a socket's path may have about a hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
