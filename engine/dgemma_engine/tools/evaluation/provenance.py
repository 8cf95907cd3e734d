"""Where, when and on which commit something was measured: what every published figure carries."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import dgemma_engine


def provenance(device: str | None) -> dict[str, Any]:
    """Returns commit, date, processor and, if one was used, accelerator; JSON-ready.

    Args:
        device: `cpu`, `cuda:0`, ...; None if no model ran.
    """
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu_name(device),
        "python": platform.python_version(),
        "torch": _installed("torch"),
        "version": dgemma_engine.__version__,
    }


def commit() -> str:
    """Returns the commit the package is from, `-dirty` if it was changed since; `unknown` outside its repository."""
    marker = Path(dgemma_engine.__file__)
    try:
        # An installed package may lie inside somebody else's repository: only one that tracks it counts.
        if not _git("ls-files", "--error-unmatch", marker.name, folder=marker.parent):
            return "unknown"
        return _git("describe", "--always", "--dirty", folder=marker.parent) or "unknown"
    except OSError:
        return "unknown"


def cpu_name() -> str:
    """Returns the processor's name, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str, folder: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False).stdout.strip()


def _gpu_name(device: str | None) -> str | None:
    if device is None or not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device)
