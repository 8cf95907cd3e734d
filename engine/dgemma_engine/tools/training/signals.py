"""Ends a long run on Ctrl-C or SIGTERM: the first ends it after its step, a second one of either at once."""

from __future__ import annotations

import signal
from collections.abc import Callable

_ENDING = (signal.SIGINT, signal.SIGTERM)


def first_signal() -> Callable[[], bool]:
    """Installs signal handlers; returns a function that returns whether SIGINT or SIGTERM came."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        for each in _ENDING:
            signal.signal(each, signal.SIG_DFL)

    for number in _ENDING:
        signal.signal(number, note)
    return lambda: bool(received)
