"""Asks a long run to end: Ctrl-C or SIGTERM once ends it after its step, twice at once."""

from __future__ import annotations

import signal
from collections.abc import Callable


def first_signal() -> Callable[[], bool]:
    """Returns whether someone asked the process to end. The second time it ends at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return lambda: bool(received)
