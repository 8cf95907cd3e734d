"""The part of a deadline that another machine and the network take. Pure."""

from __future__ import annotations

# Weight of the newest measurement; the earlier ones have the rest.
_NEWEST_SHARE = 0.3
_LEAST_LEFT_SHARE = 0.2
# Share of a deadline for an engine that ends a step after it, before an overrun was measured; weight of a shorter one.
_SPARE_SHARE, _SOONER_SHARE = 0.02, 0.2
# No round trip takes this long: the clock ran on while the machine slept.
_MOST_MS = 10_000.0
# A deadline of 0 is none.
_LEAST_MS = 1.0


class NetworkTime:
    """Milliseconds of a round trip, as a moving average, and those that an engine works beyond its deadline.

    Attributes:
        round_trip_ms: 0 before the first measurement.
        overrun_ms: of the latest of the last answers that the deadline ended; 0 before the first one.
    """

    def __init__(self) -> None:
        self.round_trip_ms = 0.0
        self.overrun_ms = 0.0
        self._is_measured = False

    def learn(self, total_ms: float, elapsed_ms: float) -> float:
        """Adds a measurement; returns its round trip in milliseconds. One that spans a sleep of the machine is ignored.

        Args:
            total_ms: from the question to its answer.
            elapsed_ms: what the other machine took of that.
        """
        measured_ms = max(total_ms - max(elapsed_ms, 0.0), 0.0)
        if measured_ms > _MOST_MS:
            return self.round_trip_ms
        share = _NEWEST_SHARE if self._is_measured else 1.0
        self._is_measured = True
        self.round_trip_ms += share * (measured_ms - self.round_trip_ms)
        return measured_ms

    def overran(self, overrun_ms: float) -> None:
        """Adds an answer that came from the engine after the deadline that it was given; a shorter one counts less.

        Args:
            overrun_ms: milliseconds after the deadline.
        """
        share = 1.0 if overrun_ms > self.overrun_ms else _SOONER_SHARE
        self.overrun_ms += share * (overrun_ms - self.overrun_ms)

    def remaining_ms(self, left_ms: float) -> float:
        """Returns the deadline to send, which leaves the answer time to end and to come back.

        Args:
            left_ms: until the answer is due here.
        """
        spare_ms = max(self.overrun_ms, _SPARE_SHARE * left_ms)
        return max(left_ms - self.round_trip_ms - spare_ms, _LEAST_LEFT_SHARE * left_ms, _LEAST_MS)

    def is_too_late(self, left_ms: float) -> bool:
        """Whether no answer to a question that is sent now can come in time.

        Args:
            left_ms: until the answer is due here.
        """
        return left_ms <= self.round_trip_ms
