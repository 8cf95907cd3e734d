"""How long the connection to the engine waits, and how its pauses between failed attempts grow. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Timeouts and pauses.

    Attributes:
        connect_ms: a request waits this long for a connection under way: 0 answers at once with nothing, large
            holds the first answers back.
        grace_ms: what an engine may take beyond a request's deadline before the request is given up.
        first_pause_s: pause after the first failed attempt to connect; doubled after each further one.
        longest_pause_s: most it grows to.
        longest_absent_pause_s: most it grows to where nothing was started, so that an attempt costs little: small
            detects sooner that the network is back, large asks a silent machine less often.
    """

    connect_ms: float = 300.0
    grace_ms: float = 2_000.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    longest_absent_pause_s: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.first_pause_s <= min(self.longest_pause_s, self.longest_absent_pause_s):
            raise ValueError(
                f"0 < {self.first_pause_s=} <= {self.longest_pause_s=}, {self.longest_absent_pause_s=} must hold"
            )

    def pause_s(self, num_failures: int) -> float:
        """Returns the seconds until the next attempt, after `num_failures` failures before the last one."""
        return min(self.first_pause_s * 2**num_failures, self.longest_pause_s)

    def absent_pause_s(self, num_failures: int) -> float:
        """Returns the seconds until the next attempt where no engine was there; see `pause_s`."""
        return min(self.pause_s(num_failures), self.longest_absent_pause_s)
