"""Which device the model runs on, and in which number format."""

from __future__ import annotations

import torch

from dgemma_engine.errors import CheckpointError


def pick_device(name: str) -> torch.device:
    """Returns the device a user means.

    Args:
        name: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        CheckpointError: the name is unknown or no such device is there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise CheckpointError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(
            f"device {name!r} is not there ({torch.cuda.device_count()} CUDA devices); use auto or cpu"
        )
    return device


def weight_dtype(device: torch.device) -> torch.dtype:
    """Returns what weights are cast to: bfloat16 on CUDA; float32 on a CPU, where small models are faster in it."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
