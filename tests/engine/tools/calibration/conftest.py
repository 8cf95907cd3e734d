"""Source files with known middles."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twelve files of short functions that differ from each other and repeat some of their lines."""
    folder = tmp_path / "tree"
    (folder / "package").mkdir(parents=True)
    for number in range(12):
        name = f"{'abcdefghijkl'[number]}name"
        functions = [
            f"def {name}_{i}(value):\n    total = prepare(value)\n    if total > {number * i}:\n"
            f"        return {name}_{i + 1}(total, limit={i})\n    return total\n\n\n"
            for i in range(8)
        ]
        (folder / "package" / f"{name}.py").write_text("".join(functions), encoding="utf-8")
    return folder
