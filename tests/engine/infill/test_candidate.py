"""Candidates that say the same become one."""

from __future__ import annotations

from dgemma_engine.infill.candidate import Proposal, merged
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.protocol.messages import CandidateSource

SEED = Seed(text="a", before=3, after=1, count=2)


def proposal(text: str, source: CandidateSource = CandidateSource.DIFFUSION, **options: object) -> Proposal:
    return Proposal(text=text, source=source, **options)  # type: ignore[reportArgumentType]


def test_texts_that_differ_in_trailing_space_are_one() -> None:
    assert [one.text for one in merged([proposal("a"), proposal("b"), proposal("a  "), proposal(" a")])] == [
        "a",
        "b",
        " a",
    ]


def test_other_ways_to_the_same_text_agree() -> None:
    sources = (CandidateSource.DIFFUSION, CandidateSource.DIFFUSION, CandidateSource.LEFT_TO_RIGHT)
    [one] = merged([proposal("a", source) for source in sources])
    assert (one.source, one.agreement) == (CandidateSource.DIFFUSION, 1)


def test_seed_and_canvas_know_of_each_other() -> None:
    [one] = merged(
        [
            proposal("a", canvas_logprobs=(-2.0,)),
            proposal("a", CandidateSource.SEED, seed=SEED),
            proposal("a", canvas_logprobs=(-0.5, -0.7)),
        ]
    )
    assert one.seed is SEED
    assert one.canvas_logprobs == (-0.5, -0.7)
