"""Whether the machine runs on battery."""

from __future__ import annotations

import psutil


def is_on_battery() -> bool:
    """Returns whether there is a battery and no mains; False where the system does not tell."""
    # Some systems have no such function.
    read = getattr(psutil, "sensors_battery", None)
    battery = None if read is None else read()
    return battery is not None and battery.power_plugged is False
