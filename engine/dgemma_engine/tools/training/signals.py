"""Ends a long run on Ctrl-C or SIGTERM: the first ends it after its step, a second one of the kind at once."""

from __future__ import annotations

import signal
from collections.abc import Callable


def first_signal() -> Callable[[], bool]:
    """Installs signal handlers; returns a function that returns whether SIGINT or SIGTERM came."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return lambda: bool(received)
