"""Turns running out of memory in mid-request into a fault of that request only: what can be freed is, and it says so.

The model itself stays loaded. Knows torch's two ways to say it; knows nothing of prompts or queues.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from dgemma_engine.errors import EngineFault
from dgemma_engine.scheduling.cooperative import Pieces, T


def freeing_on_exhaustion(run: Pieces[T], free: Callable[[], None], device: torch.device) -> Pieces[T]:
    """Returns what `run` returns, in the same pieces.

    Args:
        run: work on the device.
        free: lets go of everything that can be made again.
        device: whose memory is given back to the system afterwards.

    Raises:
        EngineFault: memory ran out; by then it is free again, and the next request may come.
    """
    try:
        return (yield from run)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_exhaustion(error):
            raise
    # Outside the handler: while it runs, the exception's frames hold on to what was allocated.
    gc.collect()
    free()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise EngineFault(
        f"out of memory on {device}; the request was dropped and its memory freed: close what else uses it, lower the "
        "context that is sent, or load a smaller format (dgemma-engine plan MODEL says what fits)"
    )


def _is_exhaustion(error: BaseException) -> bool:
    """On a CPU torch raises a plain RuntimeError that names its allocator."""
    return (
        not isinstance(error, RuntimeError)
        or isinstance(error, torch.OutOfMemoryError)
        or ("DefaultCPUAllocator" in str(error))
    )
