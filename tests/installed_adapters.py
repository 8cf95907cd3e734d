"""Installs adapters of random factors for the checkpoints of `llama_checkpoints`, as `dgemma-engine tune` would."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from dgemma_engine.repository_adapters.about import About, HeldOutFigures
from dgemma_engine.repository_adapters.store import AdapterStore, RepositoryAdapter, canonical_root

from tests.llama_checkpoints import write_adapter

_FIGURES = HeldOutFigures(num_holes=40, rest=0.3, line=0.2, edit_similarity=0.6, precision_shown=0.5, shown=0.4)


def install_adapter(
    store: AdapterStore,
    base: Path,
    root: Path,
    *,
    seed: int = 0,
    adapter: bytes | None = None,
    calibration: bytes | None = None,
    **about: Any,
) -> RepositoryAdapter:
    """Installs an adapter for a root.

    Args:
        store: receives the adapter.
        base: GGUF file, in a folder without adapters.
        root: the repository.
        seed: of the factors.
        adapter: content of the file in place of random factors.
        calibration: content of its calibration; None installs none.
        about: fields of `About` to change.
    """
    if adapter is None:
        written = write_adapter(base, "causal", rank=3, seed=seed, in_bytes=True)
        adapter = written.read_bytes()
        written.unlink()
        written.parent.rmdir()
    values: dict[str, Any] = {
        "root": str(canonical_root(root)),
        "base_name": base.name,
        "base_sha256": hashlib.sha256(base.read_bytes()).hexdigest(),
        "merged_sha256": "",
        "created": "2026-01-31T12:00:00+00:00",
        "minutes": 20.0,
        "holes": 900,
        "before": _FIGURES,
        "after": _FIGURES,
    }
    return store.install(About(**values | about), adapter=adapter, calibration=calibration)
