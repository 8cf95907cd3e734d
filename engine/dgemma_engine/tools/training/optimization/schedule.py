"""Step size over a budget of wall-clock time: warm-up, constant, cooldown. Knows seconds and steps, no optimiser."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.errors import TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Factor on every step size.

    Attributes:
        warmup_steps: steps until the factor is 1; 0 starts at full size.
        cooldown_share: last share of the time, over which the factor falls in a line; 0 never cools.
        floor: factor that the cooldown ends at.
    """

    warmup_steps: int = 50
    cooldown_share: float = 0.25
    floor: float = 0.02

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise TrainingError(f"schedule.warmup_steps={self.warmup_steps} must not be negative")
        if not 0 <= self.cooldown_share <= 1:
            raise TrainingError(f"schedule.cooldown_share={self.cooldown_share} must be between 0 and 1")
        if not 0 <= self.floor <= 1:
            raise TrainingError(f"schedule.floor={self.floor} must be between 0 and 1")

    def scale(self, *, step: int, elapsed_s: float, budget_s: float) -> float:
        """Returns the factor.

        Args:
            step: steps made so far.
            elapsed_s: time spent training so far, over all resumptions.
            budget_s: time to spend in all.
        """
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        cooldown_s = self.cooldown_share * budget_s
        left = min(1.0, max(0.0, budget_s - elapsed_s) / cooldown_s) if cooldown_s else 1.0
        return warmup * (self.floor + (1 - self.floor) * left)
