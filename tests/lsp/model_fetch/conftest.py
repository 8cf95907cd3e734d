"""A server whose model `small` comes from an index on this machine, in folders of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.package_index import Index, index, made

__all__ = ["index", "made"]


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: Index) -> Path:
    """Keeps models and state below the test's folder, and fetches from its index."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": index.url,
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path
