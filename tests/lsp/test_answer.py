from __future__ import annotations

import pytest
from dgemma_engine.protocol.messages import Candidate, CandidateSource, Finish, Infill

from dgemma_lsp.request import Completion, Request, Trigger, build_completions
from tests.lsp.cursor import request_at, split_cursor


def answered(*texts: str) -> Infill:
    candidates = tuple(Candidate(text=text, score=0.5, source=CandidateSource.DIFFUSION) for text in texts)
    return Infill(text=texts[0], finish=Finish.STABLE, score=0.5, candidates=candidates)


def test_span_is_from_the_start_of_the_line_to_the_covered_rest() -> None:
    infill = Infill(text="x)", covered=1, finish=Finish.STABLE)
    (completion,) = build_completions(request_at("a\n  foo(|)\nb"), infill)
    assert completion == Completion(lead="  foo(", inserted="x)", start=2, cursor=8, end=9, version=1)
    assert completion.text == "  foo(x)"


def test_span_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"self\.cursor=5"):
        Completion(lead="", inserted="", start=0, cursor=5, end=4, version=1)


@pytest.mark.parametrize(
    ("trigger", "texts", "shown"),
    [
        (Trigger.INVOKED, ("a", "b", "c"), ["a", "b", "c"]),
        (Trigger.AUTOMATIC, ("a", "b", "c"), ["a"]),
        (Trigger.INVOKED, ("a", "b", "a"), ["a", "b"]),
        (Trigger.INVOKED, ("", "a"), []),
    ],
)
def test_candidates(trigger: Trigger, texts: tuple[str, ...], shown: list[str]) -> None:
    text, offset = split_cursor("foo(|)")
    request = Request(uri="u", version=1, text=text, offset=offset, trigger=trigger)
    assert [completion.inserted for completion in build_completions(request, answered(*texts))] == shown
