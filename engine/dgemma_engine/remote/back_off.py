"""Back-off: how long a busy machine is not asked again. Pure."""

from __future__ import annotations

from collections.abc import Callable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# Longest pause that a machine may ask for: a longer one is taken for a fault.
_LONGEST_WANTED_S = 600.0


class BackOff:
    """The pause that a busy machine asked for; doubled each time that it is still busy afterwards.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = 0.0
        self._until_s = 0.0

    @property
    def left_s(self) -> float:
        """Seconds until the machine may be asked again; 0 where it may."""
        return max(self._until_s - self._clock(), 0.0) if self._pause_s else 0.0

    def busy(self, wanted_s: float) -> None:
        """Begins a pause; within one, several refusals at once are one.

        Args:
            wanted_s: seconds that the machine asked for, which are kept; 0 where it named none.
        """
        wanted_s = min(wanted_s, _LONGEST_WANTED_S)
        if not self.left_s:
            self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            self._until_s = self._clock() + self._pause_s
        self._until_s = max(self._until_s, self._clock() + wanted_s)

    def answered(self) -> None:
        """Ends the pause: the machine has answered a question."""
        self._pause_s = 0.0
