"""Drafts: the text of an unfinished canvas in spans, for a preview."""

from __future__ import annotations

import math

import pytest
from dgemma_engine.infill.hypotheses import RowReading, draft
from dgemma_engine.protocol.messages import Draft

TEXTS = {1: " con", 2: "fig", 3: ".x", 4: None, 5: "\n"}


def reading(ids: list[int], logprobs: list[float]) -> RowReading:
    mean = sum(logprobs) / len(logprobs)
    return RowReading(ids=ids, token_logprobs=tuple(logprobs), logprobs=tuple(logprobs), mean_logprob=mean, ended=True)


def spans_of(made: Draft) -> list[tuple[str, float, bool]]:
    return [(span.text, round(span.confidence, 3), span.settled) for span in made.spans]


def drafted(text: str, ids: list[int], logprobs: list[float], *, opening: str = "") -> Draft:
    return draft("r", 2, reading(ids, logprobs), text, opening, TEXTS.get, steps_limit=4)


def test_every_token_is_a_span() -> None:
    made = drafted(" config.x", [1, 2, 3], [math.log(0.95), math.log(0.5), math.log(0.91)])
    assert spans_of(made) == [(" con", 0.95, True), ("fig", 0.5, False), (".x", 0.91, True)]
    assert (made.text, made.step, made.steps_limit, made.request) == (" config.x", 2, 4, "r")


def test_text_that_repeats_the_prefix_is_left_out() -> None:
    made = drafted("nfig", [1, 2], [-0.1, -0.2], opening=" co")
    assert [span.text for span in made.spans] == ["n", "fig"]


def test_opening_tokens_are_no_spans() -> None:
    made = drafted("fig", [1, 2], [math.log(0.5)], opening=" con")
    assert spans_of(made) == [("fig", 0.5, False)]


def test_text_that_was_cut_short_cuts_its_last_span() -> None:
    made = drafted(" config", [1, 2, 5, 3], [0.0, 0.0, 0.0, 0.0])
    assert [span.text for span in made.spans] == [" con", "fig"]


@pytest.mark.parametrize("text", ["é", "other text"])
def test_text_that_tokens_do_not_spell_is_one_span(text: str) -> None:
    made = drafted(text, [4, 4], [math.log(0.25)] * 2)
    assert spans_of(made) == [(text, 0.25, False)]


def test_row_without_text_has_no_spans() -> None:
    assert drafted("", [4], [-1.0]).spans == ()
