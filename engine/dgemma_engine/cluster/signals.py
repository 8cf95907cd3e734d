"""Signals to `serve --ray` -> a request to end, or to read its configuration again."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_END = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """SIGTERM and SIGINT ask for the end, SIGHUP for the configuration; made on the main thread."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._is_ended = self._is_reload = False
        for number in (*_END, signal.SIGHUP):
            signal.signal(number, self._note)

    @property
    def is_ended(self) -> bool:
        """Whether the end was asked for."""
        return self._is_ended

    def wait(self) -> bool:
        """Waits for a signal; returns True where the configuration is to be read again, False for the end."""
        while not self._is_ended:
            if self._is_reload:
                self._is_reload = False
                return True
            self._came.wait()
            self._came.clear()
        return False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _END:
            self._is_ended = True
        else:
            self._is_reload = True
        self._came.set()
