"""How long each stage of one request took, measured as the stages end.

Knows a clock; knows nothing of what the stages do.
"""

from __future__ import annotations

from collections.abc import Callable


class Laps:
    """Durations of the stages of one request, in the order they end.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s = self._last_s = clock()
        self._laps_s: dict[str, float] = {}

    def __call__(self, stage: str) -> float:
        """Ends a stage and returns its seconds."""
        now_s = self._clock()
        self._laps_s[stage] = now_s - self._last_s
        self._last_s = now_s
        return self._laps_s[stage]

    def timings_ms(self) -> dict[str, float]:
        """Returns milliseconds per stage, and in all."""
        total_s = self._clock() - self._started_s
        return {stage: seconds * 1e3 for stage, seconds in self._laps_s.items()} | {"total": total_s * 1e3}
