"""The card at hand and the versions that run on it, as one JSON line: `python engine/bench/gpu/gpu_card.py`.

A program of its own, so that a driver that hangs blocks only this process.
"""

from __future__ import annotations

import json
import platform
import shutil
from importlib import metadata
from typing import Any

import torch


def card() -> dict[str, Any]:
    """Returns the versions and, where there is a CUDA device, its name, capability, sizes and driver."""
    found: dict[str, Any] = {
        "gpu": None,
        "torch": torch.__version__,
        "triton": installed("triton"),
        "transformers": installed("transformers"),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        # Triton compiles a launcher with it before its first launch.
        "c_compiler": shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"),
    }
    if not torch.cuda.is_available():
        return found
    properties = torch.cuda.get_device_properties(0)
    return found | {
        "gpu": properties.name,
        "capability": [properties.major, properties.minor],
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "num_gpus": torch.cuda.device_count(),
    }


def installed(name: str) -> str | None:
    """Returns a distribution's version."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(card()))
