"""Which errors mean that a device cannot be used by this process any more.

After such an error every later call fails too, until the process ends: an illegal address, a card that fell off the
bus, a driver that lost its state over a suspend.
"""

from __future__ import annotations

import sys

# Memory that ran out is such an error where the driver refuses it, and not torch's allocator.
_RECOVERABLE = "out of memory"


def is_device_lost(error: BaseException) -> bool:
    """Returns whether an error, or one that led to it, is a device's that only a new process can use again."""
    # The process listens before torch is imported, and only torch raises errors of devices.
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.AcceleratorError) and _RECOVERABLE not in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
