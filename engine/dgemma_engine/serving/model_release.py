"""Gives the memory of an unloaded model back: what refers to it in cycles, then what torch's allocator keeps."""

from __future__ import annotations

import gc
import sys


def rest_message(idle_s: float) -> str:
    """Returns what the status says after so many seconds without a request."""
    return (
        f"the model was unloaded after {idle_s / 60:g} minutes without a request; the next request loads it again "
        "(engine.idleUnloadMinutes)"
    )


def give_back() -> None:
    """Frees all that nothing refers to any more. A card's driver keeps its own share until the process ends."""
    # What was loaded was frozen, so that no collection looked at it while requests were served.
    gc.unfreeze()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
