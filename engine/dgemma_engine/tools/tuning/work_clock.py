"""When long work at the lowest priority may go on: not on battery, not while an engine answers requests.

Knows neither engines nor batteries: both are asked through functions.
"""

from __future__ import annotations

from collections.abc import Callable

_POLL_S = 0.25
# A person who types pauses longer than this now and then, and then goes on.
_QUIET_S = 3.0


class WorkClock:
    """Seconds of work: those of a clock, without the pauses.

    Args:
        clock: seconds that never go backwards.
        sleep: waits for some seconds.
        is_answering: whether an engine answered a request since this was last called.
        is_on_battery: whether the machine runs on battery.
        is_interrupted: whether the user asked the work to end.

    Attributes:
        stop_reason: why the work is to end; None as long as it may go on.
        is_ended_by_user: whether that is the reason.
        paused_s: seconds of all pauses.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        is_answering: Callable[[], bool],
        is_on_battery: Callable[[], bool],
        is_interrupted: Callable[[], bool],
    ) -> None:
        self._clock, self._sleep, self._is_answering = clock, sleep, is_answering
        self._is_on_battery, self._is_interrupted = is_on_battery, is_interrupted
        self.stop_reason: str | None = None
        self.is_ended_by_user = False
        self.paused_s = 0.0

    def __call__(self) -> float:
        """Returns seconds of work, from any beginning."""
        return self._clock() - self.paused_s

    def must_stop(self) -> bool:
        """Waits while an engine answers requests; returns whether the work is to end. Called every few seconds."""
        started_s = self._clock()
        quiet_since_s = None if self._is_answering() else started_s - _QUIET_S
        while not self._is_stopped() and (quiet_since_s is None or self._clock() - quiet_since_s < _QUIET_S):
            self._sleep(_POLL_S)
            if self._is_answering():
                quiet_since_s = None
            elif quiet_since_s is None:
                quiet_since_s = self._clock()
        if quiet_since_s is None or quiet_since_s > started_s - _QUIET_S:
            self.paused_s += self._clock() - started_s
        return self.stop_reason is not None

    def _is_stopped(self) -> bool:
        if self._is_interrupted():
            self.stop_reason, self.is_ended_by_user = "interrupted", True
        elif self._is_on_battery():
            self.stop_reason = "the machine runs on battery"
        return self.stop_reason is not None
