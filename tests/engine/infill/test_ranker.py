"""Candidates of the same text are merged, and ordered without a model where there is no time to judge them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from dgemma_engine.checkpoint.features import LEAST_ODDS, MOST_ODDS
from dgemma_engine.infill.candidate import Proposal
from dgemma_engine.infill.likelihood import Likelihood
from dgemma_engine.infill.ranker import features_of, merged, rank_unjudged, shares
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.protocol.messages import CandidateSource, Context
from dgemma_engine.syntax.error_check import SyntaxStore

SEED = Seed(text="a", before=3, after=1, count=2)


def proposal(text: str, *logprobs: float) -> Proposal:
    return Proposal(text=text, source=CandidateSource.DIFFUSION, canvas_logprobs=logprobs)


def test_texts_that_differ_in_trailing_space_are_one() -> None:
    assert [one.text for one in merged([proposal("a"), proposal("b"), proposal("a  "), proposal(" a")])] == [
        "a",
        "b",
        " a",
    ]


@pytest.mark.parametrize(("following", "texts"), [(" + 1\n", ["a ", "a"]), ("  \n+ 1", ["a "]), ("", ["a "])])
def test_trailing_space_counts_where_the_line_goes_on(following: str, texts: list[str]) -> None:
    assert [one.text for one in merged([proposal("a "), proposal("a")], following)] == texts


def test_other_ways_to_the_same_text_agree() -> None:
    sources = (CandidateSource.DIFFUSION, CandidateSource.DIFFUSION, CandidateSource.LEFT_TO_RIGHT)
    [one] = merged([replace(proposal("a"), source=source) for source in sources])
    assert (one.source, one.agreement) == (CandidateSource.DIFFUSION, 1)


def test_merged_candidate_keeps_seed_and_likeliest_canvas() -> None:
    found = Proposal(text="a", source=CandidateSource.SEED, seed=SEED)
    [one] = merged([proposal("a", -2.0), found, proposal("a", -0.5, -0.7)])
    assert one.seed is SEED
    assert one.canvas_logprobs == (-0.5, -0.7)


@pytest.mark.parametrize(("one", "other", "is_cut"), [(True, True, True), (True, False, False), (False, True, False)])
def test_text_that_one_source_ended_is_not_cut(one: bool, other: bool, is_cut: bool) -> None:
    found = [replace(proposal("a"), is_cut=one, num_tokens=3), replace(proposal("a "), is_cut=other, num_tokens=4)]
    [merged_one] = merged(found)
    assert (merged_one.is_cut, merged_one.num_tokens) == (is_cut, 3)


def test_unjudged_are_ordered_by_the_mean_probability_of_their_tokens() -> None:
    ranked = rank_unjudged([proposal("a", -1.0, -3.0), proposal("seed"), proposal("b", -1.0), proposal("b ", -0.5)])
    assert [(one.proposal.text, one.score) for one in ranked] == [
        ("b", math.exp(-0.5)), ("a", math.exp(-2.0)), ("seed", 0.0),
    ]  # fmt: skip


def test_unjudged_that_add_syntax_errors_are_left_out_where_syntax_is_checked() -> None:
    context = Context(document="a", prefix="a = [", suffix="]\n", language="python")
    proposals = [proposal("1)"), proposal("1")]
    checked = rank_unjudged(proposals, SyntaxStore().check(context))
    assert [one.proposal.text for one in checked] == ["1"]
    assert len(rank_unjudged(proposals)) == 2


def test_unjudged_are_checked_in_place_of_what_they_cover() -> None:
    context = Context(document="a", prefix="a = foo(", suffix=")\n", language="python")
    whole = replace(proposal("1)[0]"), covered=1)
    checked = rank_unjudged([proposal("2)[0]"), whole], SyntaxStore().check(context))
    assert [one.proposal for one in checked] == [whole]


def test_shares_are_of_middle_end_and_suffix_together() -> None:
    three = Likelihood(middle=[math.log(0.5), math.log(0.5)], end=math.log(0.6), suffix=[math.log(0.2)])
    one = Likelihood(middle=[math.log(0.1)], end=None, suffix=[math.log(0.1)])
    assert shares([three, one]) == pytest.approx([0.75, 0.25])
    assert shares([one]) == [1.0]
    assert shares([]) == []


def test_shares_stay_finite_where_tokens_have_no_probability() -> None:
    impossible, possible = (Likelihood(middle=[value], end=None, suffix=[]) for value in (-math.inf, -3.0))
    assert shares([impossible, possible]) == [0.0, 1.0]
    assert shares([impossible, impossible]) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("logprob", "odds"), [(math.log(0.5), 0.0), (math.log(0.9), math.log(9)), (0.0, MOST_ODDS), (-50.0, LEAST_ODDS)]
)
def test_odds_are_of_the_whole_middle(logprob: float, odds: float) -> None:
    written = replace(proposal("a"), source=CandidateSource.LEFT_TO_RIGHT)
    likelihood = Likelihood(middle=[logprob / 2], end=logprob / 2, suffix=[])
    features = features_of(written, likelihood, added_errors=0, share=1.0)
    assert features.odds == pytest.approx(odds)
    assert (features.end, features.share, features.written) == (logprob / 2, 1.0, 1.0)


def test_candidate_that_the_causal_mode_did_not_write_has_no_odds() -> None:
    likelihood = Likelihood(middle=[-1.0], end=None, suffix=[])
    features = features_of(proposal("a"), likelihood, added_errors=0, share=0.5)
    assert (features.written, features.odds, features.end) == (0.0, 0.0, 0.0)
