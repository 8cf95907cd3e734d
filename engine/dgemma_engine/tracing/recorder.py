"""The recording of one request, step by step: hooks of the engine in, a `Trace` out.

Made for one request and passed down with it; without one nothing is recorded and nothing is computed for it. Its hooks
are called on the device thread, change nothing and draw no random numbers. Loads no torch by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dgemma_engine.protocol.messages import Infill
from dgemma_engine.protocol.trace_messages import CanvasTrace, Trace, TracedCandidate, Verdict, WritingTrace
from dgemma_engine.tracing.canvas_recording import CanvasRecording
from dgemma_engine.tracing.writing_recorder import WritingRecorder

if TYPE_CHECKING:
    from torch import Tensor

    from dgemma_engine.checkpoint.calibration import Calibration
    from dgemma_engine.diffusion.denoiser import ScoredStep
    from dgemma_engine.diffusion.step_executor import StepExecutor
    from dgemma_engine.infill.candidate import Proposal, Ranked
    from dgemma_engine.infill.hypotheses import Hypothesis, RowReading
    from dgemma_engine.infill.task import Hole

# Positions of all rows and steps together; a page of them stays under a megabyte.
_MOST_POSITIONS = 6_000


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
        self._canvases: list[CanvasRecording] = []
        self._writings: list[WritingRecorder] = []
        self._is_kept = False
        self._num_left_out = 0
        self._candidates: tuple[TracedCandidate, ...] = ()
        self._threshold = 0.0
        self._is_calibrated = False
        self._text_of: Callable[[int], str | None] = _textless
        self._name_of: Callable[[int], str] = str

    def prompt_built(self, hole: Hole, *, text_of: Callable[[int], str | None], name_of: Callable[[int], str]) -> None:
        """Records the prompt in token ids.

        Args:
            hole: the question.
            text_of: text of a token; None for one that has none of its own.
            name_of: name of such a token.
        """
        self._num_prompt, self._begun = len(hole.prompt_ids), hole.boundary.opening
        self._text_of, self._name_of = text_of, name_of

    def began(self, hypotheses: Sequence[Hypothesis], written_ids: Sequence[int], steps_limit: int) -> None:
        """Records a new canvas; see `CanvasRecording`."""
        self._canvases.append(CanvasRecording(hypotheses, written_ids, steps_limit))
        self._since_s = self._clock()

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        """Records the scores of a canvas, if there is room left for them."""
        now_s = self._clock()
        num_positions = sum(step.num_free)
        self._is_kept = num_positions <= self._left
        if not self._is_kept:
            self._num_left_out += 1
            return
        self._left -= num_positions
        self._canvases[-1].add_step(step, executor, elapsed_ms=(now_s - self._since_s) * 1e3)
        self._since_s = self._clock()

    def read(self, readings: Mapping[int, RowReading], texts: Mapping[int, str]) -> None:
        """Records the texts of rows, by index, after a step."""
        if self._is_kept:
            self._canvases[-1].add_readings(readings, texts)
        self._since_s = self._clock()

    def renoised(self, accepted_RM: Tensor, executor: StepExecutor) -> None:
        """Records the accepted positions of a step and the tokens on the canvas now."""
        now_s = self._clock()
        if self._is_kept:
            self._canvases[-1].add_next(accepted_RM, executor)
        self._since_s += self._clock() - now_s

    def writing(self, forced_ids: Sequence[int], draft_ids: Sequence[int]) -> WritingRecorder:
        """Returns the recorder of a candidate that the causal mode begins to write."""
        self._writings.append(WritingRecorder(forced_ids, draft_ids, self._clock))
        return self._writings[-1]

    def weighed(
        self,
        proposals: Iterable[Proposal],
        ranked: Sequence[Ranked],
        *,
        is_shown: bool,
        added_errors: Callable[[str, int], int],
        calibration: Calibration,
    ) -> None:
        """Records all candidates and the verdict on each.

        Args:
            proposals: each text once.
            ranked: those with a score, best first.
            is_shown: whether the first of them is.
            added_errors: returns how many syntax errors a text adds that replaces that many characters after the hole.
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
                verdict = Verdict.SYNTAX if added_errors(proposal.text, proposal.covered) > 0 else Verdict.UNJUDGED
                candidates.append(_candidate(proposal, verdict, score=0.0, features={}))
        self._candidates = tuple(candidates)

    def trace(self, infill: Infill) -> Trace:
        """Returns the recording.

        Args:
            infill: the answer.
        """
        canvases = tuple(canvas.message() for canvas in self._canvases)
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
    """Yields the token ids of canvases."""
    for canvas in canvases:
        yield from canvas.written_ids
        for row in canvas.rows:
            yield from (*row.opening_ids, *row.head_ids)
        for step in canvas.steps:
            for row in step.rows:
                yield from (*row.seen_ids, *row.best_ids, *row.next_ids, *itertools.chain(*row.other_ids))


def _written_ids(writings: Iterable[WritingTrace]) -> Iterator[int]:
    """Yields the token ids of the causal mode."""
    for writing in writings:
        yield from (*writing.forced_ids, *writing.draft_ids)
        for one in writing.passes:
            yield from (*one.ids, *itertools.chain(*one.other_ids))
            # A guess that a pass checked is in no draft.
            if one.draft_id >= 0:
                yield one.draft_id
