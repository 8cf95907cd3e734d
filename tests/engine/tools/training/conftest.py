"""A small corpus made of invented packages, and the smallest configuration that trains on it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.tools.corpus.corpus import build_corpus
from dgemma_engine.tools.corpus.sources import Package

VOCAB_SIZE = 320


def _write_package(folder: Path, name: str, *, num_files: int = 3, seed: int = 0, licence: str = "MIT") -> Package:
    """Writes a package of small functions that differ from each other."""
    draw = random.Random(f"{name} {seed}")
    paths: list[Path] = []
    for number in range(num_files):
        names = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(30)]
        functions = [
            f"def {a}_{b}(x, y):\n    total_{a} = x + y\n    return total_{a} - {b}(x)\n\n\n"
            for a, b in zip(names[::2], names[1::2], strict=True)
        ]
        path = folder / name / f"module_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(functions), encoding="utf-8")
        paths.append(path)
    return Package(name=name, version="1.0", licence=licence, paths=tuple(paths))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Uses one thread: the tensors are tiny, and waiting for a second thread can take minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def write_package() -> Callable[..., Package]:
    """Returns the function that writes a package: folder, name, then options."""
    return _write_package


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder with both splits."""
    folder = tmp_path_factory.mktemp("sources")
    packages = [_write_package(folder, name) for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")]
    out = tmp_path_factory.mktemp("corpus")
    build_corpus(packages, out, vocab_size=VOCAB_SIZE, held_out_share=0.3)
    return out


@pytest.fixture
def settings() -> dict[str, Any]:
    """A configuration that a test may change before it is read."""
    return {
        "model": {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "intermediate_size": 32,
            "moe_intermediate_size": 16,
            "num_experts": 2,
            "top_k_experts": 1,
            "layer_types": ["sliding_attention", "full_attention"],
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_global_key_value_heads": 1,
            "head_dim": 16,
            "global_head_dim": 16,
            "sliding_window": 16,
            "canvas_length": 24,
        },
        "format": {"slot_sizes": [8, 16], "prefix_tokens": 24, "suffix_tokens": 5, "suffix_head_tokens": 8},
        "data": {"batch_tokens": 600, "canvases_per_hole": 2, "chunk_holes": 24},
        "schedule": {"warmup_steps": 2},
        "run": {"save_minutes": 1.0, "evaluate_minutes": 2.0, "evaluation_batches": 1, "log_steps": 1},
    }
