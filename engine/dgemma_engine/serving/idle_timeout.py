"""Ends an engine without clients: turns the number of clients and the state into one timer. Knows no sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dgemma_engine.protocol.status_messages import EngineState


class Timer(Protocol):
    """A call that is due later, e.g. `asyncio.TimerHandle`."""

    def cancel(self) -> None:
        """Cancels the call."""
        ...


class IdleTimeout:
    """Ends an engine without clients.

    Args:
        idle_s: seconds without a client after which the engine ends; None never ends it.
        failed_linger_s: the same for an engine that could not load, so that late clients still read why.
        call_later: schedules a call, e.g. `loop.call_later`.
        end: ends the engine.
    """

    def __init__(
        self,
        *,
        idle_s: float | None,
        failed_linger_s: float,
        call_later: Callable[[float, Callable[[], None]], Timer],
        end: Callable[[], None],
    ) -> None:
        if idle_s is not None and idle_s <= 0:
            raise ValueError(f"{idle_s=} must be positive, or None for never")
        self._idle_s = idle_s
        self._failed_linger_s = failed_linger_s
        self._call_later = call_later
        self._end = end
        self._limit_s: float | None = None
        self._timer: Timer | None = None

    def update(self, *, num_clients: int, state: EngineState) -> None:
        """Starts, stops or keeps the timer; to be called whenever a client comes or goes or the state changes."""
        limit_s = self._limit(num_clients, state)
        if limit_s == self._limit_s:
            return
        self.close()
        self._limit_s = limit_s
        if limit_s is not None:
            self._timer = self._call_later(limit_s, self._end)

    def close(self) -> None:
        """Cancels the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._limit_s = None

    def _limit(self, num_clients: int, state: EngineState) -> float | None:
        if num_clients > 0:
            return None
        return self._failed_linger_s if state is EngineState.FAILED else self._idle_s
