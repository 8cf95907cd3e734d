"""Turns out-of-memory errors of one request into a fault of that request only, after freeing what can be freed.

The model itself stays loaded. Knows the errors of torch's allocators; knows nothing of prompts or queues.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from dgemma_engine.errors import EngineFault

MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError, RuntimeError)
"""What torch raises where memory runs out; of the RuntimeErrors only those that `is_exhaustion` accepts."""


def is_exhaustion(error: BaseException) -> bool:
    """Returns whether an error means that memory ran out; a CPU's is a plain RuntimeError that names its allocator."""
    return (
        not isinstance(error, RuntimeError)
        or isinstance(error, torch.OutOfMemoryError)
        or ("DefaultCPUAllocator" in str(error))
    )


def free_memory(free: Callable[[], None], device: torch.device) -> EngineFault:
    """Frees memory and returns the fault of the request that ran out of it.

    To be called outside the handler: while that runs, the exception's frames hold on to what was allocated.

    Args:
        free: drops everything that can be computed again.
        device: whose memory is returned to the system afterwards.
    """
    gc.collect()
    free()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return EngineFault(
        f"out of memory on {device}; the request was dropped and its memory freed: close what else uses it, lower the "
        "context that is sent, or load a smaller format (dgemma-engine plan MODEL says what fits)"
    )


def slow_step_message(device: torch.device) -> str:
    """Returns what is told of a device whose steps have become 10 times slower: a full card is a likely cause."""
    why = "its memory may be full, which some drivers answer by moving it to main memory: close what else uses it"
    told = f"a denoising step takes 10 times as long as it did on {device}"
    return f"{told}; {why}" if device.type == "cuda" else told
