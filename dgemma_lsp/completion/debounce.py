"""What the user types in a document, and how long to wait for the next key before the engine is asked.

Typing cadence and engine latency -> seconds; the time is an argument.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dgemma_lsp.completion.cache import EngineAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class DebounceConfig:
    """Bounds of the wait.

    Attributes:
        pause_s: a gap from here on is a pause, and the key after it the first of a burst: small waits less often,
            large keeps the cadence of earlier bursts.
        repeat_s: gaps below this are a held key, faster than anyone types: the engine is not asked before it is
            released.
        longest_s: longest wait; 0 never waits.
        weight: weight of the newest gap and latency in their averages: 1 keeps the last one only.
    """

    pause_s: float = 1.0
    repeat_s: float = 0.04
    longest_s: float = 0.2
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ValueError(f"{self.weight=} must be above 0 and at most 1")
        if not 0 <= self.repeat_s <= self.pause_s:
            raise ValueError(f"0 <= {self.repeat_s=} <= {self.pause_s=} must hold")
        if self.longest_s < 0:
            raise ValueError(f"{self.longest_s=} must not be negative")


class LatencyEstimate:
    """Exponential moving average of the engine's latencies."""

    def __init__(self, config: DebounceConfig) -> None:
        self._weight = config.weight
        self.mean_s = 0.0

    def learn(self, latency_s: float) -> None:
        """Adds one answer's latency."""
        self.mean_s += self._weight * (latency_s - self.mean_s) if self.mean_s else latency_s

    def exceeds(self, waited_s: float) -> None:
        """Adds the time of a cancelled request, as a lower bound: with a fast typist no request is answered."""
        if waited_s > self.mean_s:
            self.learn(waited_s)


class TypingCadence:
    """The gaps between the keys of one document."""

    def __init__(self, config: DebounceConfig) -> None:
        self._config = config
        self._last_s: float | None = None
        self._gap_s: float | None = None

    def key(self, now_s: float) -> None:
        """Records a key: an edit, or a question without an edit before it."""
        if self._last_s is not None:
            gap_s = now_s - self._last_s
            if gap_s >= self._config.pause_s:
                self._gap_s = None
            elif self._gap_s is None:
                self._gap_s = gap_s
            else:
                self._gap_s += self._config.weight * (gap_s - self._gap_s)
        self._last_s = now_s

    def wait_s(self, now_s: float, latency_s: float, *, said_nothing: bool = False) -> float:
        """Returns how long to wait before the engine is asked, in seconds from now on.

        0 for the first key after a pause, and while the engine answers in half of a gap. An engine that answers
        within a gap is asked so that its answer comes one and a half gaps after the key. A slower one cannot answer
        before the next key: it is asked where that key is late, a gap after the last. After an empty answer and
        while a key is held, the engine is asked after one and a half gaps: one character later the answer is seldom
        another. The time that the client has waited since the key counts.

        Args:
            now_s: the clock.
            latency_s: mean latency of the engine; 0 if unknown.
            said_nothing: whether its last answer was empty.
        """
        gap_s = self._gap_s
        if self._last_s is None or gap_s is None:
            return 0.0
        if gap_s < self._config.repeat_s or said_nothing:
            wait_s = 1.5 * gap_s
        elif latency_s > gap_s:
            wait_s = gap_s
        elif latency_s <= gap_s / 2:
            return 0.0
        else:
            wait_s = 1.5 * gap_s - latency_s
        return max(0.0, min(wait_s, self._config.longest_s) - (now_s - self._last_s))


@dataclass(slots=True, kw_only=True)
class TypingState:
    """State of typing in one document.

    Attributes:
        cadence: of the keys.
        is_edited: whether an edit came since the last question.
        deleted: whether the last edit only took text away.
        said_nothing: whether the engine's last answer was empty, and no key was held back since.
        shown: the answer whose item is shown.
        speculation: timer that starts the speculative request.
    """

    cadence: TypingCadence
    is_edited: bool = False
    deleted: bool = False
    said_nothing: bool = False
    shown: EngineAnswer | None = None
    speculation: asyncio.TimerHandle | None = None

    def put_off(self) -> None:
        """Cancels the speculative request that is due."""
        if self.speculation is not None:
            self.speculation.cancel()
            self.speculation = None
