"""Latencies of the last requests, per stage, as the percentiles that `dgemma-engine status` prints. Not thread-safe."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from dgemma_engine.protocol.messages import StageTimes


class StageRecord:
    """A bounded record.

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
