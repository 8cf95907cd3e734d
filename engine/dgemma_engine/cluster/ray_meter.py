"""Measurements to Ray's counters, which each machine exports in Prometheus' format beside Ray's own."""

from __future__ import annotations

from collections.abc import Mapping

from ray.serve.metrics import Counter, Gauge, Histogram

from dgemma_engine.cluster.measurements import BOUNDARIES_MS, COUNTERS, GAUGES, STAGE_MS


class RayMeter:
    """A `Meter` in a replica; Ray adds its names of application, deployment and replica."""

    def __init__(self) -> None:
        self._counters = {
            name: Counter(name, description=meaning, tag_keys=("finish",) if name == "dgemma_requests" else None)
            for name, meaning in COUNTERS.items()
        }
        self._gauges = {name: Gauge(name, description=meaning) for name, meaning in GAUGES.items()}
        self._stage_ms = Histogram(
            STAGE_MS,
            description="Milliseconds of a completion, by stage.",
            boundaries=list(BOUNDARIES_MS),
            tag_keys=("stage",),
        )

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Adds to a counter."""
        self._counters[name].inc(amount, tags=dict(labels))

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Adds a value to the histogram."""
        assert name == STAGE_MS
        self._stage_ms.observe(value, tags=dict(labels))

    def set(self, name: str, value: float) -> None:
        """Sets a gauge."""
        self._gauges[name].set(value)
