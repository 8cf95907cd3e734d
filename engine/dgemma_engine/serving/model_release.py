"""Frees the memory of an unloaded model: reference cycles, then the blocks that torch's allocator keeps."""

from __future__ import annotations

import gc
import sys


def rest_message(idle_s: float) -> str:
    """Returns the status message after `idle_s` seconds without a request."""
    return (
        f"the model was unloaded after {idle_s / 60:g} minutes without a request; the next request loads it again "
        "(engine.idleUnloadMinutes)"
    )


def give_back() -> None:
    """Frees all unreachable objects. A card's driver keeps its own share until the process ends."""
    # Loaded objects were frozen, so that garbage collections skipped them while requests were served.
    gc.unfreeze()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
