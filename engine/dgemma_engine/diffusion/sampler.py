"""The sampler's decisions, one small frozen object each: tensors in, tensors out.

`denoiser.py` wires them; none does I/O, keeps state or draws from a generator it was not given. The rules follow
`transformers/models/diffusion_gemma/generation_diffusion_gemma.py` (5.23.0); with nothing fixed on the canvas they are
exactly its rules, and with clamped positions they look at the free ones only.

Shape legend: B rows, L canvas positions, N positions of all rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureSchedule:
    """Linear temperature, hot first.

    Attributes:
        t_min: temperature that the last step of a full run approaches; near 0 is greedy.
        t_max: temperature of the first step; 1 samples as the model believes.
    """

    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max:
            raise ValueError(f"{self.t_max=} must be > {self.t_min=} >= 0")

    def temperature(self, remaining: int, num_steps: int) -> float:
        """Returns the temperature when `remaining` of `num_steps` steps are left, the current one included."""
        return self.t_min + (self.t_max - self.t_min) * (remaining / num_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyBound:
    """Accepts the surest positions while their joint uncertainty stays small (arXiv 2505.24857).

    Attributes:
        bound: nats; near 0 accepts one token a step, large accepts all at once.
    """

    bound: float

    def __post_init__(self) -> None:
        if self.bound <= 0:
            raise ValueError(f"{self.bound=} must be > 0")

    def accept(self, entropy_BL: Tensor, free_BL: Tensor) -> Tensor:
        """Returns the accepted positions [B, L], bool; fixed positions are never among them and spend no budget."""
        entropy_BL = entropy_BL.masked_fill(~free_BL, torch.inf)
        ascending_BL, order_BL = torch.sort(entropy_BL, dim=-1)
        spent_by_others_BL = torch.cumsum(ascending_BL, dim=-1) - ascending_BL
        accepted_BL = spent_by_others_BL <= self.bound
        return torch.zeros_like(free_BL).scatter(-1, order_BL, accepted_BL)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformNoise:
    """Noise is uniform over the whole vocabulary: there is no mask token.

    Attributes:
        vocab_size: V.
    """

    vocab_size: int

    def draw(self, num_rows: int, length: int, generator: torch.Generator) -> Tensor:
        """Returns random token ids [num_rows, length], int64, on the generator's device."""
        shape = (num_rows, length)
        return torch.randint(0, self.vocab_size, shape, generator=generator, device=generator.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class StableAndConfident:
    """Stops a row when its best guess stands still and is sure.

    Attributes:
        stability: earlier steps whose best guess must equal the current one; 0 asks for confidence only.
        confidence: nats; the mean entropy must be below it. Near 0 runs every step, large stops as soon as stable.
    """

    stability: int
    confidence: float

    def __post_init__(self) -> None:
        if self.stability < 0:
            raise ValueError(f"{self.stability=} must be >= 0")
        if self.confidence <= 0:
            raise ValueError(f"{self.confidence=} must be > 0")

    def finished(self, earlier: Sequence[Tensor], best_BL: Tensor, entropy_BL: Tensor, free_BL: Tensor) -> Tensor:
        """Returns which rows may stop [B], bool.

        Args:
            earlier: best guesses [B, L] of the steps before, newest last.
            best_BL: best guess of this step.
            entropy_BL: nats.
            free_BL: positions that count.
        """
        mean_B = (entropy_BL * free_BL).sum(-1) / free_BL.sum(-1).clamp(min=1)
        if len(earlier) < self.stability:
            return torch.zeros_like(mean_B, dtype=torch.bool)
        stable_B = torch.ones_like(mean_B, dtype=torch.bool)
        for other_BL in list(earlier)[len(earlier) - self.stability :]:
            stable_B &= ((other_BL == best_BL) | ~free_BL).all(-1)
        return stable_B & (mean_B < self.confidence)


class ClampedBelief(Enum):
    """What the next step is told that the last one believed of clamped positions (docs/decisions/0007)."""

    OWN = auto()
    GIVEN = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """The decisions of one denoising run.

    Attributes:
        num_steps: most denoising steps; the temperature schedule is spread over them.
        schedule: temperature of each step.
        acceptance: which sampled tokens are kept until the next step.
        noise: what replaces the others.
        stop: when to end early.
        clamped_belief: self-conditioning at clamped positions.
    """

    num_steps: int
    schedule: TemperatureSchedule
    acceptance: EntropyBound
    noise: UniformNoise
    stop: StableAndConfident
    clamped_belief: ClampedBelief = ClampedBelief.OWN

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"{self.num_steps=} must be at least 1")


def sample(probs_NV: Tensor, levels_N1: Tensor) -> Tensor:
    """Draws one token id per position by inverting its distribution function at one uniform number.

    The same distribution as `torch.multinomial` from one draw a position instead of one a vocabulary entry, many times
    faster (`draw_ms` in engine/bench/results/step.json). A token of probability 0 is never drawn.

    Args:
        probs_NV: distributions; need not be normalised.
        levels_N1: uniform numbers, 0 up to but not including 1.

    Returns:
        [N], int64.
    """
    cumulative_NV = probs_NV.cumsum(-1)
    passed_N1 = torch.searchsorted(cumulative_NV, levels_N1 * cumulative_NV[:, -1:], right=True)
    return passed_N1.squeeze(-1).clamp_(max=probs_NV.shape[-1] - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What the model believes of each judged position at one temperature.

    Attributes:
        scaled_NV: logits divided by the temperature, float32.
        probs_NV: distribution, float32.
        best_N: most likely token; perhaps of the first positions only.
        entropy_N: nats; of the same positions.
    """

    scaled_NV: Tensor
    probs_NV: Tensor
    best_N: Tensor
    entropy_N: Tensor


def judge(scaled_NV: Tensor, probs_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Reads distributions with few passes over the vocabulary.

    The entropy is log Z - sum(p * s) for scaled logits s; log Z follows from the best token's probability.

    Args:
        scaled_NV: float32, finite; a banned token has a very negative one.
        probs_NV: their softmax, float32.

    Returns:
        The most likely token of each position, and the entropy in nats.
    """
    highest_N, best_N = scaled_NV.max(-1)
    log_norm_N = highest_N - probs_NV.gather(-1, best_N[:, None]).squeeze(-1).log()
    return best_N, (log_norm_N - (probs_NV * scaled_NV).sum(-1)).clamp_(min=0.0)


def confidence(scaled_NV: Tensor, temperature: float) -> Tensor:
    """Returns the probability at temperature 1 of the likeliest token of each position, [N], float32.

    Args:
        scaled_NV: logits divided by `temperature`.
        temperature: > 0.
    """
    below_best_NV = scaled_NV - scaled_NV.amax(-1, keepdim=True)
    return below_best_NV.mul_(temperature).exp_().sum(-1).reciprocal_()
