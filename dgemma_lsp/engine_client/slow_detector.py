"""Whether the engine is slow, and why: its last answers in, one line for a person out. Pure; knows no clock."""

from __future__ import annotations

from dgemma_engine.protocol.messages import Finish, Infill
from dgemma_engine.protocol.status_messages import Status

# Answers in a row that came too late: one or two happen on any machine that does other work.
_MISSES = 3
# From this share of an answer's time on, other windows are why it took so long.
_OTHERS_SHARE = 0.4


class SlowDetector:
    """Counts the answers in a row that came too late.

    Attributes:
        reason: why answers come late; empty while they do not.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._misses = 0
        self._others = 0.0

    def learn(self, infill: Infill, *, deadline_ms: float, engine: Status | None) -> None:
        """Adds one answer.

        Args:
            infill: the engine's answer.
            deadline_ms: how long it may take.
            engine: the engine's own status; None where it was not asked.
        """
        if infill.finish is Finish.CANCELLED:
            return
        if infill.finish is not Finish.DEADLINE:
            self._misses, self.reason = 0, ""
            return
        self._misses += 1
        total_ms = infill.timings_ms.get("total", 0.0)
        elsewhere_ms = infill.timings_ms.get("others", 0.0) + infill.timings_ms.get("queue", 0.0)
        self._others = elsewhere_ms / total_ms if total_ms > 0 else 0.0
        if self._misses >= _MISSES:
            self.reason = self._why(deadline_ms, engine)

    def _why(self, deadline_ms: float, engine: Status | None) -> str:
        late = f"the last {self._misses} answers were cut off after {deadline_ms:g} ms"
        if self._others >= _OTHERS_SHARE:
            return f"{late}: the engine serves another window too"
        if engine is not None and engine.device == "cpu" and engine.model != "embedded":
            return (
                f"{late}: {engine.model} runs on the processor; choose a smaller model or a device with dgemma.engine"
            )
        return f"{late}: raise dgemma.deadlineMs or lower dgemma.maxTokens"
