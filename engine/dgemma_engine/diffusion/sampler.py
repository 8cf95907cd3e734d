"""The decisions of one denoising run, each a small frozen object: temperature, acceptance, noise, stop rule.

A new policy is one frozen (hashable) class with the methods of `Acceptance`, `Noise` or `StopRule`; the loop needs no
change. `absorbing_mask` holds those of masked diffusion. The rules of a DiffusionGemma follow
`transformers/models/diffusion_gemma/generation_diffusion_gemma.py` (5.23.0); with nothing clamped on the canvas they
are exactly its rules, and with clamped positions they decide by the free ones only.

Shape legend: R rows, M positions of the longest free part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.diffusion.resizing import Resizing


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionScores:
    """The outcome of one denoising step at the free positions: what acceptance and stop rules decide by.

    Rows with fewer than M are padded, and `valid_RM` is False there.

    Attributes:
        best_RM: the answer so far, int64: a committed token, elsewhere the likeliest one.
        entropy_RM: nats at the step's temperature, float32.
        valid_RM: bool.
        committed_RM: bool, where the canvas holds a token that is no noise; None if noise cannot be told from tokens.
        probability_RM: of the likeliest token at the step's temperature, float32; None but for an absorbing mask: a
            DiffusionGemma has the entropy alone.
        position_RM: in the text, the prompt included, int64; None if the executor has none.
        steps_left: that follow this one; 0 is the last.
    """

    best_RM: Tensor
    entropy_RM: Tensor
    valid_RM: Tensor
    committed_RM: Tensor | None = None
    probability_RM: Tensor | None = None
    position_RM: Tensor | None = None
    steps_left: int = 0


class Acceptance(Protocol):
    """Decides between a token and noise."""

    def accept(self, scores: PositionScores) -> Tensor:
        """Returns the accepted positions [R, M], bool; where `valid_RM` is False the value is ignored.

        Called while a CUDA graph is captured: tensor operations without host synchronisation.
        """
        ...


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

    def accept(self, scores: PositionScores) -> Tensor:
        """See `Acceptance.accept`; positions that are not valid spend no budget."""
        entropy_RM = scores.entropy_RM.masked_fill(~scores.valid_RM, torch.inf)
        ascending_RM, order_RM = torch.sort(entropy_RM, dim=-1)
        spent_by_others_RM = torch.cumsum(ascending_RM, dim=-1) - ascending_RM
        return torch.zeros_like(scores.valid_RM).scatter(-1, order_RM, spent_by_others_RM <= self.bound)


class Noise(Protocol):
    """Draws noise, and tells it from text where it can."""

    @property
    def suppressed_ids(self) -> Sequence[int]:
        """Token ids that only noise may hold: no step proposes them."""
        ...

    def draw(self, num_rows: int, length: int, generator: torch.Generator) -> Tensor:
        """Returns noise [num_rows, length], int64, on the generator's device."""
        ...

    def committed(self, ids: Tensor) -> Tensor | None:
        """Returns which token ids are no noise, bool; None if any id may be noise.

        An accepted position keeps a committed token and takes a newly drawn one elsewhere. Called while a CUDA graph is
        captured: tensor operations without host synchronisation.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformNoise:
    """Noise is uniform over the whole vocabulary: there is no mask token, and every position is drawn anew.

    Attributes:
        vocab_size: V.
        suppressed_ids: see `Noise.suppressed_ids`.
    """

    vocab_size: int
    suppressed_ids: Sequence[int] = field(default=(), init=False)

    def draw(self, num_rows: int, length: int, generator: torch.Generator) -> Tensor:
        """See `Noise.draw`."""
        shape = (num_rows, length)
        return torch.randint(0, self.vocab_size, shape, generator=generator, device=generator.device)

    def committed(self, ids: Tensor) -> Tensor | None:
        """See `Noise.committed`."""
        return None


class StopRule(Protocol):
    """Decides after each step which rows are finished."""

    @property
    def num_earlier(self) -> int:
        """Earlier steps whose answers `finished` compares; 0 keeps none."""
        ...

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """Returns which rows may stop [R], bool.

        Args:
            earlier: `best_RM` of the steps before, newest last; at most `num_earlier`, fewer on the first steps.
            scores: of this step.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EveryStep:
    """Stops no row: every step of the sampler is made."""

    @property
    def num_earlier(self) -> int:
        """See `StopRule.num_earlier`."""
        return 0

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """See `StopRule.finished`."""
        return torch.zeros(scores.valid_RM.shape[0], dtype=torch.bool, device=scores.valid_RM.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class StableAndConfident:
    """Stops a row whose answer stays the same and has a low entropy.

    Attributes:
        num_earlier: earlier steps whose answer must equal the current one; 0 asks for confidence only.
        confidence: nats; the mean entropy must be below it. Near 0 runs every step, large stops as soon as stable.
    """

    num_earlier: int
    confidence: float

    def __post_init__(self) -> None:
        if self.num_earlier < 0:
            raise ValueError(f"{self.num_earlier=} must be >= 0")
        if self.confidence <= 0:
            raise ValueError(f"{self.confidence=} must be > 0")

    def finished(self, earlier: Sequence[Tensor], scores: PositionScores) -> Tensor:
        """See `StopRule.finished`."""
        valid_RM = scores.valid_RM
        mean_R = (scores.entropy_RM * valid_RM).sum(-1) / valid_RM.sum(-1).clamp(min=1)
        if len(earlier) < self.num_earlier:
            return torch.zeros_like(mean_R, dtype=torch.bool)
        finished_R = mean_R < self.confidence
        for other_RM in earlier:
            finished_R &= ((other_RM == scores.best_RM) | ~valid_RM).all(-1)
        return finished_R


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureSchedule:
    """Linear temperature, hot first.

    Attributes:
        t_min: temperature that the last step of a full run approaches; near 0 is greedy, `t_max` keeps it constant.
        t_max: temperature of the first step; 1 samples from the model's own distribution.
    """

    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        if not 0 <= self.t_min <= self.t_max or self.t_max == 0:
            raise ValueError(f"{self.t_max=} must be > 0 and >= {self.t_min=} >= 0")

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


class Commitment(Enum):
    """The token of a position that a step commits, where noise can be told from tokens.

    DRAWN: from the step's distribution; a later step may mask it again, so its confidence is that of the last step.
    FINAL: the likeliest one, with the probability that it had then. For models that were trained to read masked
    positions only: their distribution at a committed one has no meaning, and a row must start from noise alone.
    """

    DRAWN = auto()
    FINAL = auto()


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
        commitment: which token a committed position gets, and whether it stays.
        resizing: how committed tokens change the length of a row; None leaves rows as long as they begin.
    """

    num_steps: int
    schedule: TemperatureSchedule
    acceptance: Acceptance
    noise: Noise
    stop: StopRule
    clamped_conditioning: ClampedConditioning = ClampedConditioning.OWN
    commitment: Commitment = Commitment.DRAWN
    resizing: Resizing | None = None

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"{self.num_steps=} must be at least 1")
        if self.resizing is not None and (self.stop.num_earlier or self.commitment is not Commitment.FINAL):
            raise ValueError("rows change their length only where tokens stay, and no stop rule compares earlier steps")
