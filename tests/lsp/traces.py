"""Traces written by hand, for tests of their display."""

from __future__ import annotations

from dataclasses import replace

from dgemma_engine.protocol.messages import Candidate, CandidateSource, Finish, Infill
from dgemma_engine.protocol.trace_messages import (
    CanvasTrace,
    PassTrace,
    RowKind,
    RowStep,
    RowTrace,
    StepTrace,
    Trace,
    TracedCandidate,
    Verdict,
    WritingTrace,
)


def row_step(row: int, num_free: int, *, best: int, is_last: bool, text: str = "", settled: bool = False) -> RowStep:
    """A row that reads the same token everywhere; its first position is kept."""
    return RowStep(
        row=row,
        seen_ids=(2,) * num_free,
        best_ids=(best,) * num_free,
        confidence=(0.75,) * num_free,
        entropy=(1.23456,) * num_free,
        other_ids=((best, 3),) * num_free,
        other_probabilities=((0.75, 0.0001),) * num_free,
        accepted=() if is_last else (1, *[0] * (num_free - 1)),
        next_ids=() if is_last else (best, *[2] * (num_free - 1)),
        settled=settled,
        text=text,
        mean_logprob=-0.25,
    )


def made_trace(
    *, text: str = "1 + 1", token: str = " one", num_free: int = 3, num_steps: int = 2, covered: int = 0
) -> Trace:
    """Two rows on one canvas, the second dropped after the first step; the first of two candidates is shown."""
    steps = [
        StepTrace(
            temperature=0.8 - 0.1 * number,
            elapsed_ms=7.12345,
            rows=tuple(
                row_step(row, num_free, best=1, is_last=number == num_steps - 1, text=text)
                for row in ((0, 1) if number == 0 else (0,))
            ),
        )
        for number in range(num_steps)
    ]
    candidates: tuple[Candidate, ...] = ()
    if text:
        best = Candidate(text=text, covered=covered, score=0.7512345, source=CandidateSource.DIFFUSION)
        candidates = (best,)
    return Trace(
        infill=Infill(
            text=text,
            covered=covered,
            finish=Finish.STABLE if text else Finish.EMPTY,
            score=0.7512345 if text else 0.0,
            steps=num_steps,
            forwards=num_steps + 1,
            candidates=candidates,
            timings_ms={"queue": 0.1, "denoise": 14.2469, "total": 20.0},
        ),
        num_prompt=12,
        begun="",
        canvases=(
            CanvasTrace(
                written_ids=(),
                steps_limit=num_steps,
                rows=(
                    RowTrace(kind=RowKind.SLOT, num_free=num_free, opening_ids=(), head_ids=(3,) * 9, seed=""),
                    RowTrace(kind=RowKind.SEED, num_free=num_free, opening_ids=(3,), head_ids=(3,), seed=token),
                ),
                steps=tuple(steps),
            ),
        ),
        writings=(
            WritingTrace(
                forced_ids=(),
                draft_ids=(1, 3),
                passes=(
                    PassTrace(
                        elapsed_ms=3.14159,
                        ids=(1, 3),
                        entropy=(0.25, 1.23456),
                        other_ids=((1, 3), (3, 1)),
                        other_probabilities=((0.9, 0.0001), (0.6, 0.4)),
                        num_agreed=1,
                        draft_id=1,
                        ended=True,
                    ),
                ),
                text=text,
            ),
        ),
        candidates=(
            TracedCandidate(
                text=text or "2",
                source=CandidateSource.DIFFUSION,
                score=0.7512345 if text else 0.05,
                verdict=Verdict.SHOWN if text else Verdict.UNLIKELY,
                features={"middle_mean": -0.5},
            ),
            TracedCandidate(text="((", source=CandidateSource.SEED, score=0.0, verdict=Verdict.SYNTAX, features={}),
        ),
        threshold=0.1,
        is_calibrated=True,
        tokens={"1": token, "3": "\n"},
        marks={"2": "<fill>"},
        num_left_out=0,
    )


def corrected_trace() -> Trace:
    """A row of two positions: the first is accepted as `a`, masked again, and accepted as `b`; the second stays."""
    looks = (
        ((10, 13), (1, 0), (10, 5)),
        ((10, 10), (0, 0), (5, 5)),
        ((10, 13), (0, 1), (5, 13)),
        ((13, 13), (1, 1), (13, 13)),
        ((13, 13), (), ()),
    )
    steps = tuple(
        StepTrace(
            temperature=0.0,
            elapsed_ms=1.0,
            rows=(
                replace(row_step(0, 2, best=10, is_last=True), best_ids=best, accepted=accepted, next_ids=following),
            ),
        )
        for best, accepted, following in looks
    )
    row = RowTrace(kind=RowKind.SLOT, num_free=2, opening_ids=(), head_ids=(), seed="")
    canvas = CanvasTrace(written_ids=(), steps_limit=5, rows=(row,), steps=steps)
    tokens = {2: "c", 3: "d", 10: "a", 13: "b"}
    return replace(made_trace(), marks={5: "<mask>"}, tokens=tokens, canvases=(canvas,), writings=())
