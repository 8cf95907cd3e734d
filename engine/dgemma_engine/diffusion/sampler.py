"""The decisions of one denoising run, each a small frozen object: temperature, acceptance, noise, stop rule.

The rules of a DiffusionGemma follow `transformers/models/diffusion_gemma/generation_diffusion_gemma.py` (5.23.0); with
nothing clamped on the canvas they are exactly its rules, and with clamped positions they decide by the free ones only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from dgemma_engine.diffusion.acceptance import Acceptance
from dgemma_engine.diffusion.noise import Noise
from dgemma_engine.diffusion.stop_rule import StopRule


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureSchedule:
    """Linear temperature, hot first.

    Attributes:
        t_min: temperature that the last step of a full run approaches; near 0 is greedy.
        t_max: temperature of the first step; 1 samples from the model's own distribution.
    """

    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max:
            raise ValueError(f"{self.t_max=} must be > {self.t_min=} >= 0")

    def temperature(self, remaining: int, num_steps: int) -> float:
        """Returns the temperature when `remaining` of `num_steps` steps are left, the current one included."""
        return self.t_min + (self.t_max - self.t_min) * (remaining / num_steps)


class ClampedConditioning(Enum):
    """Self-conditioning signal at clamped positions (docs/decisions/0007).

    OWN: the last step's own distribution there; GIVEN: the given token's embedding; NOTHING: zeros.
    """

    OWN = auto()
    GIVEN = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """The decisions of one denoising run.

    Attributes:
        num_steps: most denoising steps; the temperature schedule is spread over them.
        schedule: temperature of each step.
        acceptance: which free positions hold a token on the next canvas.
        noise: what the others hold.
        stop: when a row ends early.
        clamped_conditioning: self-conditioning at clamped positions, for a model that has it.
    """

    num_steps: int
    schedule: TemperatureSchedule
    acceptance: Acceptance
    noise: Noise
    stop: StopRule
    clamped_conditioning: ClampedConditioning = ClampedConditioning.OWN

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"{self.num_steps=} must be at least 1")
