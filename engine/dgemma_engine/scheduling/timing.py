"""The time of requests: until when one may go on, and how long its stages take.

`Cancel` is one request's permission to go on: cancelled by its client, or out of time; checked between denoising steps,
and set from any thread. The others turn instants into durations, of one request, expected of the next one, and
percentiles over the last ones; not thread-safe. Knows nothing of what the stages do.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dgemma_engine.protocol.messages import Finish
from dgemma_engine.protocol.status_messages import StageTimes

# Share of the newest duration in the moving average: near 0 hardly follows, 1 is the last duration alone.
_NEWEST = 0.25
_SLOW_FACTOR, _SLOW_IN_A_ROW = 10.0, 4


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cancel:
    """Set from any thread, read from the device thread.

    Attributes:
        deadline_s: instant on `clock` after which the best answer so far is due.
        clock: seconds that never go backwards, e.g. `time.monotonic`.
        event: set once the answer is no longer wanted.
    """

    deadline_s: float
    clock: Callable[[], float]
    event: threading.Event = field(default_factory=threading.Event)

    def set(self) -> None:
        """Asks the work to end at the next step; its answer is no longer wanted."""
        self.event.set()

    @property
    def cancelled(self) -> bool:
        """Whether the answer is no longer wanted."""
        return self.event.is_set()

    @property
    def finish(self) -> Finish | None:
        """Why the work has to end: CANCELLED, DEADLINE, or None if it may go on."""
        if self.cancelled:
            return Finish.CANCELLED
        return Finish.DEADLINE if self.left_s <= 0 else None

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline_s - self.clock()


class StageTimer:
    """Durations of the stages of one request, in the order in which they end.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s = self._last_s = clock()
        self._stages_s: dict[str, float] = {}

    def end(self, stage: str) -> float:
        """Ends a stage and returns its seconds."""
        now_s = self._clock()
        self._stages_s[stage] = now_s - self._last_s
        self._last_s = now_s
        return self._stages_s[stage]

    def timings_ms(self) -> dict[str, float]:
        """Returns milliseconds per stage, and in all."""
        total_s = self._clock() - self._started_s
        return {stage: seconds * 1e3 for stage, seconds in self._stages_s.items()} | {"total": total_s * 1e3}


class DurationEstimator:
    """Moving averages of durations, by stage, and whether the last ones are far above the least average.

    Attributes:
        mean_s: expected duration of each stage that was measured.
    """

    def __init__(self) -> None:
        self.mean_s: dict[str, float] = {}
        self._least_mean_s: dict[str, float] = {}
        self._slow_in_a_row: dict[str, int] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Adds one duration to the average."""
        mean_s = self.mean_s.get(stage, seconds)
        mean_s += _NEWEST * (seconds - mean_s)
        least_s = min(mean_s, self._least_mean_s.get(stage, mean_s))
        self.mean_s[stage], self._least_mean_s[stage] = mean_s, least_s
        is_slow = seconds > _SLOW_FACTOR * least_s
        self._slow_in_a_row[stage] = self._slow_in_a_row.get(stage, 0) + 1 if is_slow else 0

    def is_slow(self, stage: str) -> bool:
        """Whether the last 4 durations of a stage were each more than 10 times its least average."""
        return self._slow_in_a_row.get(stage, 0) >= _SLOW_IN_A_ROW


class LatencyStats:
    """Latencies of the last requests, per stage, as the percentiles that `dgemma-engine status` prints.

    Args:
        size: how many of the latest measurements each stage keeps.
    """

    def __init__(self, *, size: int = 512) -> None:
        if size < 1:
            raise ValueError(f"{size=} must be at least 1")
        self._size = size
        self._stages: dict[str, deque[float]] = {}

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Adds one request's milliseconds per stage."""
        for stage, elapsed_ms in timings_ms.items():
            self._stages.setdefault(stage, deque(maxlen=self._size)).append(elapsed_ms)

    def times(self) -> dict[str, StageTimes]:
        """Returns count and percentiles per stage, in the order in which the stages first appeared."""
        return {stage: _stage_times(list(values)) for stage, values in self._stages.items()}


def _stage_times(values_ms: list[float]) -> StageTimes:
    ordered = sorted(values_ms)
    return StageTimes(count=len(ordered), p50_ms=_percentile(ordered, 0.50), p95_ms=_percentile(ordered, 0.95))


def _percentile(ordered: list[float], share: float) -> float:
    """Returns the nearest-rank percentile: a value that was measured, never one between two."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
