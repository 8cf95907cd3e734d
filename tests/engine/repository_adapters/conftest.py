"""Metadata of an adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.repository_adapters.about import About, HeldOutFigures
from dgemma_engine.repository_adapters.store import canonical_root

FIGURES = HeldOutFigures(num_holes=40, rest=0.3, line=0.25, edit_similarity=0.6, precision_shown=0.5, shown=0.7)

MakeAbout = Callable[..., About]


def factors(num_bytes: int = 4) -> bytes:
    """Returns a whole safetensors file with a tensor of that many bytes."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(num_bytes)


@pytest.fixture
def make_about(tmp_path: Path) -> MakeAbout:
    """Returns a function that makes the metadata of an adapter of the repository `repo`; keywords override fields."""

    def make(**changed: Any) -> About:
        values: dict[str, Any] = {
            "root": str(canonical_root(tmp_path / "repo")), "base_name": "base.gguf", "base_sha256": "ab" * 32,
            "merged_sha256": "", "created": "2026-01-31T10:00:00+00:00", "minutes": 20.0, "holes": 1_000,
            "before": FIGURES, "after": FIGURES,
        }  # fmt: skip
        return About(**(values | changed))

    return make
