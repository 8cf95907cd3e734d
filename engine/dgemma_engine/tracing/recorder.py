"""What one request does, step by step, for who asked for a trace: hooks of the engine in, a `Trace` out.

Made for one request and passed down with it; without one nothing is recorded and nothing is computed for it. Its hooks
are called on the device thread, change nothing and draw nothing. Loads no torch by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

from dgemma_engine.protocol.messages import Infill
from dgemma_engine.protocol.trace_messages import (
    CanvasTrace,
    RowKind,
    RowStep,
    RowTrace,
    StepTrace,
    Trace,
    TracedCandidate,
    Verdict,
    WritingTrace,
)
from dgemma_engine.tracing.writing_recorder import WritingRecorder

if TYPE_CHECKING:
    from torch import Tensor

    from dgemma_engine.checkpoint.calibration import Calibration
    from dgemma_engine.diffusion.canvas import Canvas
    from dgemma_engine.diffusion.denoiser import Judgement
    from dgemma_engine.infill.candidate import Proposal, Ranked
    from dgemma_engine.infill.hypotheses import Hypothesis, Reading
    from dgemma_engine.prompting.builder import Hole

# Likeliest tokens kept per position.
_MOST_OTHERS = 4
# Positions of all rows and steps together; a page of them stays under a megabyte.
_MOST_POSITIONS = 6_000


@dataclass(slots=True, kw_only=True)
class _Look:
    """A row at a step while it is being recorded; the fields are those of `RowStep`."""

    seen_ids: list[int]
    best_ids: list[int]
    confidence: list[float]
    entropy: list[float]
    other_ids: list[list[int]]
    other_probabilities: list[list[float]]
    settled: bool
    accepted: list[int] = field(default_factory=list[int])
    next_ids: list[int] = field(default_factory=list[int])
    reading: Reading | None = None

    @classmethod
    def of(cls, judgement: Judgement, canvas: Canvas, place: int) -> Self:
        """Returns what the model saw and believes of the row at `place` on the canvas."""
        num_free = judgement.num_free[place]
        judged_M = judgement.free_RM[place, :num_free]
        # At temperature 1, as `Guess.confidence` is.
        logprobs_MV = (judgement.belief.scaled_NV[judged_M] * judgement.temperature).log_softmax(-1)
        others = logprobs_MV.topk(min(_MOST_OTHERS, logprobs_MV.shape[-1]))
        probabilities_MK = others.values.exp()
        return cls(
            seen_ids=canvas.ids_1L[0, canvas.layout.free_RM[place, :num_free]].tolist(),
            best_ids=judgement.belief.best_N[judged_M].tolist(),
            confidence=probabilities_MK[:, 0].tolist(),
            entropy=judgement.belief.entropy_N[judged_M].tolist(),
            other_ids=others.indices.tolist(),
            other_probabilities=probabilities_MK.tolist(),
            settled=judgement.live[place] in judgement.finished,
        )

    def row_step(self, index: int) -> RowStep:
        """Returns it as a message."""
        return RowStep(
            row=index,
            seen_ids=tuple(self.seen_ids),
            best_ids=tuple(self.best_ids),
            confidence=tuple(self.confidence),
            entropy=tuple(self.entropy),
            other_ids=tuple(map(tuple, self.other_ids)),
            other_probabilities=tuple(map(tuple, self.other_probabilities)),
            accepted=tuple(self.accepted),
            next_ids=tuple(self.next_ids),
            settled=self.settled,
            text=self.reading.text if self.reading else "",
            mean_logprob=self.reading.mean_logprob if self.reading else 0.0,
        )


@dataclass(slots=True, kw_only=True)
class _Step:
    """A step while it is being recorded; rows by their index."""

    temperature: float
    elapsed_ms: float
    looks: dict[int, _Look]


@dataclass(slots=True, kw_only=True)
class _Canvas:
    """A canvas while it is being recorded."""

    written_ids: tuple[int, ...]
    steps_limit: int
    rows: tuple[RowTrace, ...]
    steps: list[_Step] = field(default_factory=list)


class Recorder:
    """The recording of one request.

    Args:
        clock: seconds that never go backwards.
        most_positions: positions of all rows and steps that are kept; what goes beyond is counted only.
    """

    def __init__(self, clock: Callable[[], float], *, most_positions: int = _MOST_POSITIONS) -> None:
        self._clock = clock
        self._left = most_positions
        self._since_s = clock()
        self._num_prompt = 0
        self._begun = ""
        self._canvases: list[_Canvas] = []
        self._writings: list[WritingRecorder] = []
        self._is_kept = False
        self._num_left_out = 0
        self._candidates: tuple[TracedCandidate, ...] = ()
        self._threshold = 0.0
        self._is_calibrated = False
        self._text_of: Callable[[int], str | None] = _textless
        self._name_of: Callable[[int], str] = str

    def dug(self, hole: Hole, *, text_of: Callable[[int], str | None], name_of: Callable[[int], str]) -> None:
        """Takes note of the question in token ids.

        Args:
            hole: the question.
            text_of: text of a token; None for one that has none of its own.
            name_of: name of such a token.
        """
        self._num_prompt, self._begun = len(hole.prompt_ids), hole.boundary.opening
        self._text_of, self._name_of = text_of, name_of

    def began(self, hypotheses: Sequence[Hypothesis], written_ids: Sequence[int], steps_limit: int) -> None:
        """Takes note of a new canvas.

        Args:
            hypotheses: its rows.
            written_ids: of the middle, settled by the canvases before.
            steps_limit: most steps.
        """
        rows = tuple(
            RowTrace(
                kind=RowKind.SEED if one.seed else RowKind.LENGTH if one.exact else RowKind.SLOT,
                num_free=one.row.num_free,
                opening_ids=one.row.opening_ids,
                head_ids=one.row.head_ids,
                seed=one.seed.text if one.seed else "",
            )
            for one in hypotheses
        )
        self._canvases.append(_Canvas(written_ids=tuple(written_ids), steps_limit=steps_limit, rows=rows))
        self._since_s = self._clock()

    def judged(self, judgement: Judgement, canvas: Canvas) -> None:
        """Takes note of what the model believes of a canvas."""
        now_s = self._clock()
        num_positions = sum(judgement.num_free)
        self._is_kept = num_positions <= self._left
        if not self._is_kept:
            self._num_left_out += 1
            return
        self._left -= num_positions
        looks = {index: _Look.of(judgement, canvas, place) for place, index in enumerate(judgement.live)}
        elapsed_ms = (now_s - self._since_s) * 1e3
        self._canvases[-1].steps.append(_Step(temperature=judgement.temperature, elapsed_ms=elapsed_ms, looks=looks))
        self._since_s = self._clock()

    def read(self, readings: Mapping[int, Reading]) -> None:
        """Takes note of what rows, by index, say after a step."""
        if self._is_kept:
            for index, reading in readings.items():
                self._canvases[-1].steps[-1].looks[index].reading = reading
        self._since_s = self._clock()

    def advanced(self, accepted_RM: Tensor, canvas: Canvas) -> None:
        """Takes note of what stays of a step and what stands on the canvas now."""
        now_s = self._clock()
        if self._is_kept:
            for place, look in enumerate(self._canvases[-1].steps[-1].looks.values()):
                num_free = canvas.layout.rows[place].num_free
                look.accepted = list(map(int, accepted_RM[place, :num_free].tolist()))
                look.next_ids = canvas.ids_1L[0, canvas.layout.free_RM[place, :num_free]].tolist()
        self._since_s += self._clock() - now_s

    def writing(self, forced_ids: Sequence[int], draft_ids: Sequence[int]) -> WritingRecorder:
        """Returns what takes note of a candidate that the causal mode begins to write; see there."""
        self._writings.append(WritingRecorder(forced_ids, draft_ids, self._clock))
        return self._writings[-1]

    def weighed(
        self,
        proposals: Iterable[Proposal],
        ranked: Sequence[Ranked],
        *,
        is_shown: bool,
        added_errors: Callable[[str], int],
        calibration: Calibration,
    ) -> None:
        """Takes note of all candidates and what became of them.

        Args:
            proposals: each text once.
            ranked: those with a score, best first.
            is_shown: whether the first of them is.
            added_errors: returns how many syntax errors a text adds.
            calibration: of the model.
        """
        self._threshold, self._is_calibrated = calibration.threshold, calibration.weights is not None
        candidates: list[TracedCandidate] = []
        for place, one in enumerate(ranked):
            if is_shown:
                verdict = Verdict.BEHIND if place else Verdict.SHOWN
            else:
                verdict = Verdict.UNLIKELY if one.features else Verdict.UNJUDGED
            features = asdict(one.features) if one.features else {}
            candidates.append(_candidate(one.proposal, verdict, score=one.score, features=features))
        known = {one.proposal.text for one in ranked}
        for proposal in proposals:
            if proposal.text not in known:
                verdict = Verdict.SYNTAX if added_errors(proposal.text) > 0 else Verdict.UNJUDGED
                candidates.append(_candidate(proposal, verdict, score=0.0, features={}))
        self._candidates = tuple(candidates)

    def trace(self, infill: Infill) -> Trace:
        """Returns the recording.

        Args:
            infill: the answer.
        """
        canvases = tuple(
            CanvasTrace(
                written_ids=canvas.written_ids,
                steps_limit=canvas.steps_limit,
                rows=canvas.rows,
                steps=tuple(
                    StepTrace(
                        temperature=step.temperature,
                        elapsed_ms=step.elapsed_ms,
                        rows=tuple(look.row_step(index) for index, look in step.looks.items()),
                    )
                    for step in canvas.steps
                ),
            )
            for canvas in self._canvases
        )
        writings = tuple(writing.trace() for writing in self._writings)
        texts = {token_id: self._text_of(token_id) for token_id in sorted({*_ids(canvases), *_written_ids(writings)})}
        return Trace(
            infill=infill,
            num_prompt=self._num_prompt,
            begun=self._begun,
            canvases=canvases,
            writings=writings,
            candidates=self._candidates,
            threshold=self._threshold,
            is_calibrated=self._is_calibrated,
            tokens={str(token_id): text for token_id, text in texts.items() if text},
            marks={str(token_id): self._name_of(token_id) for token_id, text in texts.items() if not text},
            num_left_out=self._num_left_out,
        )


def _textless(_token_id: int) -> None:
    return None


def _candidate(proposal: Proposal, verdict: Verdict, *, score: float, features: dict[str, float]) -> TracedCandidate:
    return TracedCandidate(text=proposal.text, source=proposal.source, score=score, verdict=verdict, features=features)


def _ids(canvases: Iterable[CanvasTrace]) -> Iterator[int]:
    """Yields the token ids that a recording speaks of."""
    for canvas in canvases:
        yield from canvas.written_ids
        for row in canvas.rows:
            yield from (*row.opening_ids, *row.head_ids)
        for step in canvas.steps:
            for look in step.rows:
                yield from (*look.seen_ids, *look.best_ids, *look.next_ids, *itertools.chain(*look.other_ids))


def _written_ids(writings: Iterable[WritingTrace]) -> Iterator[int]:
    """Yields likewise those of the causal mode."""
    for writing in writings:
        yield from (*writing.forced_ids, *writing.draft_ids)
        for one in writing.passes:
            yield from (*one.ids, *itertools.chain(*one.other_ids))
