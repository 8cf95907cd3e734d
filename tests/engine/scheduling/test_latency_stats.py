"""Percentiles of the last measurements."""

from __future__ import annotations

import pytest
from dgemma_engine.protocol.messages import StageTimes
from dgemma_engine.scheduling.latency_stats import StageRecord


def test_times_are_values_that_were_measured() -> None:
    record = StageRecord()
    for elapsed_ms in range(100, 0, -1):
        record.add({"denoise": float(elapsed_ms)})
    record.add({"queue": 3.0})
    assert record.times() == {
        "denoise": StageTimes(count=100, p50_ms=50.0, p95_ms=95.0),
        "queue": StageTimes(count=1, p50_ms=3.0, p95_ms=3.0),
    }


def test_add_forgets_the_oldest() -> None:
    record = StageRecord(size=2)
    for elapsed_ms in (1_000.0, 1.0, 2.0):
        record.add({"total": elapsed_ms})
    assert record.times()["total"] == StageTimes(count=2, p50_ms=1.0, p95_ms=2.0)


def test_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        StageRecord(size=0)
