"""The steps of a recorded request as a message of the socket: plain values, standard library only.

Token ids stand for tokens; `Trace.tokens` and `Trace.marks` hold the spelling of each. Knows no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dgemma_engine.protocol.codec import Message
from dgemma_engine.protocol.messages import CandidateSource, Infill

TRACE = "engine/trace"


class RowKind(StrEnum):
    """The kind of hypothesis that a row of a canvas tests."""

    SLOT = "slot"
    LENGTH = "length"
    SEED = "seed"


class Verdict(StrEnum):
    """The outcome of a candidate: shown, less likely than the shown one, below the threshold, broken syntax, or not
    scored in time."""

    SHOWN = "shown"
    BEHIND = "behind"
    UNLIKELY = "unlikely"
    SYNTAX = "syntax"
    UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTrace(Message):
    """A row as it enters its canvas: [clamped opening][free positions][clamped head of the suffix].

    Attributes:
        kind: a slot with room to spare, a middle of exactly this length, or a text found elsewhere to start from.
        num_free: free positions.
        opening_ids: clamped before them.
        head_ids: clamped after them.
        seed: text the row starts from; empty for one that starts from noise.
    """

    kind: RowKind
    num_free: int
    opening_ids: tuple[int, ...]
    head_ids: tuple[int, ...]
    seed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStep(Message):
    """One row at one step; a value per free position.

    Attributes:
        row: its index on the canvas.
        seen_ids: the tokens before the step.
        best_ids: the most likely tokens in the step.
        confidence: their probability at temperature 1, 0 to 1.
        entropy: nats, at the step's temperature.
        other_ids: the likeliest tokens, likeliest first.
        other_probabilities: theirs at temperature 1.
        accepted: 1 where the drawn token stays for the next step, 0 where noise follows; empty if the canvas made no
            further step.
        next_ids: the tokens after the step; empty likewise.
        settled: whether the row's most likely tokens were sure and unchanged, so that it was done.
        text: what would be inserted if this were the last step; may be empty.
        mean_logprob: of that text's tokens, nats.
    """

    row: int
    seen_ids: tuple[int, ...]
    best_ids: tuple[int, ...]
    confidence: tuple[float, ...]
    entropy: tuple[float, ...]
    other_ids: tuple[tuple[int, ...], ...]
    other_probabilities: tuple[tuple[float, ...], ...]
    accepted: tuple[int, ...]
    next_ids: tuple[int, ...]
    settled: bool
    text: str
    mean_logprob: float

    def __post_init__(self) -> None:
        num_free = len(self.seen_ids)
        for name in ("best_ids", "confidence", "entropy", "other_ids", "other_probabilities"):
            if len(getattr(self, name)) != num_free:
                raise ValueError(f"RowStep.{name} must have {num_free} values, one per free position")
        for name in ("accepted", "next_ids"):
            if len(getattr(self, name)) not in {0, num_free}:
                raise ValueError(f"RowStep.{name} must have {num_free} values, one per free position, or none")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrace(Message):
    """One denoising step of a canvas.

    Attributes:
        temperature: of the distribution that tokens are drawn from.
        elapsed_ms: milliseconds it took, without the recording.
        rows: those that were on the canvas, in its order.
    """

    temperature: float
    elapsed_ms: float
    rows: tuple[RowStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasTrace(Message):
    """One canvas: independent rows, denoised together.

    Attributes:
        written_ids: tokens of the middle that earlier canvases settled; this one goes on after them.
        steps_limit: most steps; the temperature schedule is spread over them.
        rows: as they enter.
        steps: in order.
    """

    written_ids: tuple[int, ...]
    steps_limit: int
    rows: tuple[RowTrace, ...]
    steps: tuple[StepTrace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTrace(Message):
    """One forward pass of the causal mode; a value per token that it decided.

    Attributes:
        elapsed_ms: milliseconds it took, without the recording.
        ids: the tokens, the one that ends the middle included.
        entropy: nats, at temperature 1.
        other_ids: the likeliest tokens, likeliest first, the one of `ids` included.
        other_probabilities: theirs at temperature 1.
        num_agreed: how many of the tokens, from the first, equal the draft's, so that they cost no pass of their own.
        draft_id: the draft's first token that differs; -1 if the draft had ended.
        ended: whether the last token ends the middle and is no part of it.
    """

    elapsed_ms: float
    ids: tuple[int, ...]
    entropy: tuple[float, ...]
    other_ids: tuple[tuple[int, ...], ...]
    other_probabilities: tuple[tuple[float, ...], ...]
    num_agreed: int
    draft_id: int
    ended: bool

    def __post_init__(self) -> None:
        num_tokens = len(self.ids)
        for name in ("entropy", "other_ids", "other_probabilities"):
            if len(getattr(self, name)) != num_tokens:
                raise ValueError(f"PassTrace.{name} must have {num_tokens} values, one per token")
        if not 0 <= self.num_agreed <= num_tokens:
            raise ValueError(f"{self.num_agreed=} must be between 0 and {num_tokens}, the number of tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingTrace(Message):
    """A candidate that the causal mode wrote, from left to right.

    Attributes:
        forced_ids: tokens it had to begin with.
        draft_ids: the guess that was checked after them, the surest text so far; empty for none.
        passes: in order.
        text: as it would be inserted; empty if no candidate came of it.
    """

    forced_ids: tuple[int, ...]
    draft_ids: tuple[int, ...]
    passes: tuple[PassTrace, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedCandidate(Message):
    """A candidate, and its outcome.

    Attributes:
        text: as it would be inserted.
        source: what proposed it first.
        score: probability of being right, or a substitute where it was not scored; 0 for one that breaks the
            syntax.
        verdict: its outcome.
        features: the inputs of the score, by name; empty where it was not scored.
    """

    text: str
    source: CandidateSource
    score: float
    verdict: Verdict
    features: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Message):
    """A request from its canvas to its answer.

    Attributes:
        infill: the answer, the same as without a recording.
        num_prompt: tokens of the prompt.
        begun: end of the prefix that the middle repeats because it is part of a word (token healing); in no text here.
        canvases: in order; a further one is larger, or goes on after the one before it.
        writings: what the causal mode wrote after them; empty where it was not asked.
        candidates: what was considered, best first.
        threshold: score from which a candidate is shown, 0 to 1.
        is_calibrated: whether scores are probabilities that were measured for this model.
        tokens: text by token id, of every token that has one.
        marks: name by token id of the others: special tokens, parts of a character.
        num_left_out: steps that are not recorded because the recording would be too large.
    """

    infill: Infill
    num_prompt: int
    begun: str
    canvases: tuple[CanvasTrace, ...]
    writings: tuple[WritingTrace, ...]
    candidates: tuple[TracedCandidate, ...]
    threshold: float
    is_calibrated: bool
    tokens: dict[str, str]
    marks: dict[str, str]
    num_left_out: int
