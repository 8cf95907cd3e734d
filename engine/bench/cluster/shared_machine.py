"""The processor that all programs of a measurement share: transport cost of a request, and turns on the cores.

Measured replicas share their cores with the editors, Ray and its proxy, and each replica's own interpreter with the
requests that come in; a simulation of people on such a machine needs both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import simpy
from dgemma_engine.protocol.messages import Context
from dgemma_engine.remote.remote_engine import RemoteEngine
from instant_engine import SLOW_PATH
from simpy.events import Event

# The switch interval of Python's threads.
_QUANTUM_S = 0.005
_REST_S = 10.0
# From one key to the next, longer than a client holds a cancellation back; from a request to its cancellation.
_KEY_S, _BEFORE_CANCEL_S = 0.15, 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Seconds of processor time.

    Attributes:
        replica_s: in the process of the replica that is asked.
        outside_s: in all other processes: the editor, Ray's proxy, the system.
    """

    replica_s: float = 0.0
    outside_s: float = 0.0

    def beyond(self, other: ProcessorTime) -> ProcessorTime:
        """Returns the excess over another one, 0 where there is none."""
        return ProcessorTime(
            replica_s=max(self.replica_s - other.replica_s, 0.0), outside_s=max(self.outside_s - other.outside_s, 0.0)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrying:
    """The transport cost of a request, without the engine's work on it.

    Attributes:
        answered: of a request that is answered.
        taken_back: in addition, of a request that is cancelled before its answer.
        at_rest: in each second without a request.
        idle_s: seconds of a request's duration in which no core works for it.
    """

    answered: ProcessorTime = field(default_factory=ProcessorTime)
    taken_back: ProcessorTime = field(default_factory=ProcessorTime)
    at_rest: ProcessorTime = field(default_factory=ProcessorTime)
    idle_s: float = 0.0


async def carrying(
    remote: RemoteEngine, replica_pids: Callable[[], Sequence[int]], questions: Sequence[Context]
) -> Carrying:
    """Returns the cost of requests to an engine that answers at once.

    Args:
        remote: a connection to `echo_replica`.
        replica_pids: returns the processes of the replicas.
        questions: of one document, as somebody types.
    """
    # Ray is busy for a while after a start.
    await _ask_all(remote, questions)
    meter = _Meter(replica_pids)
    await asyncio.sleep(_REST_S)
    at_rest = meter.since_last(_REST_S, ProcessorTime(), _REST_S)
    began_s = time.monotonic()
    times_s = await _ask_all(remote, questions)
    answered = meter.since_last(time.monotonic() - began_s, at_rest, len(questions))
    began_s = time.monotonic()
    for question in questions:
        asking = asyncio.create_task(remote.infill(replace(question, path=SLOW_PATH)))
        await asyncio.sleep(_BEFORE_CANCEL_S)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await asyncio.sleep(_KEY_S - _BEFORE_CANCEL_S)
    taken_back = meter.since_last(time.monotonic() - began_s, at_rest, len(questions)).beyond(answered)
    idle_s = statistics.median(times_s) - answered.replica_s - answered.outside_s
    return Carrying(answered=answered, taken_back=taken_back, at_rest=at_rest, idle_s=max(idle_s, 0.0))


async def _ask_all(remote: RemoteEngine, questions: Sequence[Context]) -> list[float]:
    times_s: list[float] = []
    for question in questions:
        asked_s = time.monotonic()
        await remote.infill(question)
        times_s.append(time.monotonic() - asked_s)
    return times_s


class _Meter:
    """Reads the processor time of the machine and of the replicas."""

    def __init__(self, replica_pids: Callable[[], Sequence[int]]) -> None:
        self._replica_pids = replica_pids
        self._last = self._read()

    def since_last(self, seconds: float, at_rest: ProcessorTime, num: float) -> ProcessorTime:
        """Returns the time used since the last call for each of `num` requests, beyond that at rest."""
        before, self._last = self._last, self._read()
        replica_s, outside_s = (now - then for now, then in zip(self._last, before, strict=True))
        return ProcessorTime(
            replica_s=max(replica_s - at_rest.replica_s * seconds, 0.0) / num,
            outside_s=max(outside_s - at_rest.outside_s * seconds, 0.0) / num,
        )

    def _read(self) -> tuple[float, float]:
        replica_s = sum(replica_processor_s(pid) for pid in self._replica_pids())
        times = psutil.cpu_times()
        busy_s = sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))
        return replica_s, busy_s - replica_s


def replica_processor_s(pid: int) -> float:
    """Returns the seconds of processor time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class SharedMachine:
    """Cores that all work of a simulation takes turns on.

    Args:
        world: the simulation.
        num_cores: None sets no limit.
    """

    def __init__(self, world: simpy.Environment, num_cores: int | None) -> None:
        self._world = world
        self._cores = None if num_cores is None else simpy.Resource(world, capacity=num_cores)

    def work(self, seconds: float, interpreter: simpy.Resource | None = None) -> Generator[Event, Any, None]:
        """Works in turns with everything else.

        Args:
            seconds: of processor time.
            interpreter: of a process that does one piece of work at a time; None uses a process for each piece.
        """
        if self._cores is None:
            yield self._world.timeout(seconds)
            return
        while seconds > 1e-9:
            quantum_s = min(seconds, _QUANTUM_S)
            if interpreter is None:
                yield from self._quantum(quantum_s)
            else:
                with interpreter.request() as turn:
                    yield turn
                    yield from self._quantum(quantum_s)
            seconds -= quantum_s

    def _quantum(self, seconds: float) -> Generator[Event, Any, None]:
        assert self._cores is not None
        with self._cores.request() as core:
            yield core
            yield self._world.timeout(seconds)

    def load(self, share: float) -> Generator[Event, Any, None]:
        """Uses a share of one core for ever."""
        while True:
            yield from self.work(_QUANTUM_S)
            yield self._world.timeout(_QUANTUM_S * (1 / share - 1))
