"""Cancellation and deadline of one request, checked between denoising steps."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dgemma_engine.protocol.messages import Finish


class Cancel:
    """Set from any thread, read from the device thread.

    Args:
        deadline_s: instant on `clock` after which the best answer so far is due.
        clock: seconds that never go backwards, e.g. `time.monotonic`.
    """

    def __init__(self, *, deadline_s: float, clock: Callable[[], float]) -> None:
        self._event = threading.Event()
        self._deadline_s = deadline_s
        self._clock = clock

    def set(self) -> None:
        """Asks the work to end at the next step; its answer is no longer wanted."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether the answer is no longer wanted."""
        return self._event.is_set()

    @property
    def finish(self) -> Finish | None:
        """Why the work has to end: CANCELLED, DEADLINE, or None if it may go on."""
        if self.cancelled:
            return Finish.CANCELLED
        return Finish.DEADLINE if self.left_s <= 0 else None

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._deadline_s - self._clock()

    def sooner(self, by_s: float) -> Cancel:
        """Returns a cancel whose deadline is `by_s` seconds earlier, and which is set together with this one."""
        permission = Cancel(deadline_s=self._deadline_s - by_s, clock=self._clock)
        permission._event = self._event
        return permission
