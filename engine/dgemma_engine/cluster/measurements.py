"""Completions of a replica -> counters for operators: how they ended, time by stage, tokens, steps, share of the cache.

They contain no text of a request. A `Meter` receives the counters: in a replica Ray's, which each machine exports in
Prometheus' format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dgemma_engine.protocol.messages import Infill
from dgemma_engine.protocol.status_messages import Status

STAGES = ("queue", "others", "tokenize", "encode", "propose", "denoise", "rank", "total")
BOUNDARIES_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0)
COUNTERS: Mapping[str, str] = {
    "dgemma_requests": "Completions, by how they ended; also those that were refused, cancelled or failed.",
    "dgemma_shown": "Completions with a text.",
    "dgemma_tokens": "Tokens of the texts that were answered.",
    "dgemma_steps": "Denoising steps.",
    "dgemma_prompt_tokens": "Tokens of prompts.",
    "dgemma_encoded_tokens": "Tokens of prompts that no earlier request had encoded; the rest came from the cache.",
}
"""Name and meaning of each counter; the first is counted by `finish`."""
STAGE_MS = "dgemma_stage_ms"
"""Histogram of milliseconds, by `stage`."""
GAUGES: Mapping[str, str] = {
    "dgemma_memory_bytes": "Memory of the replica's process.",
    "dgemma_device_memory_bytes": "Memory on the card.",
    "dgemma_under_way": "Completions that wait or run.",
    "dgemma_reload_refused": "1 while a replica keeps its earlier limits and keys: the new ones cannot be used.",
}


class Meter(Protocol):
    """Where measurements go."""

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Adds to a counter."""
        ...

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Adds a value to a histogram."""
        ...

    def set(self, name: str, value: float) -> None:
        """Sets a gauge."""
        ...


class Measurements:
    """Counts completions.

    Args:
        meter: receives what is counted.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def ended(self, end: str, infill: Infill | None) -> None:
        """Counts one completion.

        Args:
            end: a `Finish`, `busy` or `fault`.
            infill: its answer; None where there is none, or where it was counted with another completion.
        """
        self._meter.count("dgemma_requests", 1, {"finish": end})
        if infill is None:
            return
        best = infill.candidates[0] if infill.candidates else None
        amounts = {
            "dgemma_shown": bool(infill.text),
            "dgemma_tokens": 0 if best is None else best.num_tokens,
            "dgemma_steps": infill.steps,
            "dgemma_prompt_tokens": infill.prompt_tokens,
            "dgemma_encoded_tokens": infill.encoded_tokens,
        }
        for name, amount in amounts.items():
            if amount:
                self._meter.count(name, amount, {})
        for stage in STAGES:
            if stage in infill.timings_ms:
                self._meter.observe(STAGE_MS, infill.timings_ms[stage], {"stage": stage})

    def reloaded(self, is_refused: bool) -> None:
        """Sets whether the newest limits and keys were refused."""
        self._meter.set("dgemma_reload_refused", float(is_refused))

    def sampled(self, status: Status, num_under_way: int) -> None:
        """Sets the gauges that are sampled at each health check."""
        self._meter.set("dgemma_memory_bytes", status.memory_bytes)
        self._meter.set("dgemma_device_memory_bytes", status.device_memory_bytes)
        self._meter.set("dgemma_under_way", num_under_way)
