"""How long the stages of an answer take on this machine, learnt from the last ones. Numbers only; knows no clock."""

from __future__ import annotations

# Share of the newest measurement in the running mean: near 0 hardly learns, 1 believes the last one.
_NEWEST = 0.25


class Pace:
    """Running means of durations, by stage."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}

    def learn(self, stage: str, seconds: float) -> None:
        """Takes in one more duration."""
        mean_s = self._mean_s.get(stage, seconds)
        self._mean_s[stage] = mean_s + _NEWEST * (seconds - mean_s)

    def expected_s(self, stage: str) -> float:
        """Returns what the stage will take; 0 while nothing is known."""
        return self._mean_s.get(stage, 0.0)
