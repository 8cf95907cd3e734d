from __future__ import annotations

from dataclasses import replace

import pytest
from dgemma_engine.http_api.completions.question import Answer, Question, StopKind, sent_prefix, to_answer
from dgemma_engine.protocol.messages import Candidate, CandidateSource, Context, Extent, Finish, Infill


def context_of(question: Question) -> Context:
    return question.to_context(
        document="d",
        prefix=sent_prefix(question, 0),
        deadline_ms=3_000,
        max_middle_tokens=256,
        speculative=False,
        insistent=False,
    )


def answer_to(question: Question, found: Infill, first: int = 0) -> Answer:
    return to_answer(question, found, model="m", first=first)


def infill(*texts: str, covered: int = 0, num_tokens: int = 0, is_cut: bool = False) -> Infill:
    made = Candidate(
        text="", score=0.5, source=CandidateSource.SEED, covered=covered, num_tokens=num_tokens, is_cut=is_cut
    )
    found = tuple(replace(made, text=one) for one in texts)
    return Infill(text=texts[0], covered=covered, finish=Finish.STABLE, score=0.5, candidates=found)


@pytest.mark.parametrize(("max_tokens", "sent"), [(None, 256), (-0, 1), (1, 1), (100, 100), (10**9, 256)])
def test_to_context_keeps_tokens_within_the_limit(max_tokens: int | None, sent: int) -> None:
    assert context_of(Question(prefix="x", max_tokens=max_tokens)).max_middle_tokens == sent


def test_to_context_has_unix_line_ends_and_the_text_beyond_the_window() -> None:
    lines = "".join(f"line {number}\r\n" for number in range(4_000))
    context = context_of(Question(prefix=lines, suffix=lines, path="a.py", seed=-1))
    assert "\r" not in context.prefix + context.suffix + context.edges.above + context.edges.below
    assert context.edges.above + context.prefix == lines.replace("\r\n", "\n")
    assert context.prefix.startswith("line ") and 8_000 <= len(context.prefix) <= 16_000
    assert len(context.suffix) == 8_000 and context.edges.below
    assert (context.language, context.seed) == ("python", 2**63 - 1)


def test_sent_prefix_of_a_growing_text_begins_alike_for_thousands_of_characters() -> None:
    text = "".join(f"line {number}\n" for number in range(9_000))
    starts = {sent_prefix(Question(prefix=text[:end]), 0)[:40] for end in range(40_000, 44_000, 10)}
    assert len(starts) <= 2


@pytest.mark.parametrize(
    ("prefix", "stop", "extent"),
    [
        ("if x:\n    ", (), Extent.BLOCK),
        ("if x:\n    ", ("\n",), Extent.LINE),
        ("if x:\n    return ", (), Extent.LINE),
    ],
)
def test_to_context_chooses_the_extent(prefix: str, stop: tuple[str, ...], extent: Extent) -> None:
    assert context_of(Question(prefix=prefix, path="a.py", stop=stop)).extent is extent


@pytest.mark.parametrize(
    ("text", "suffix", "covered", "inserted"),
    [("a, b)", ")\n", 1, "a, b"), ("a, b", ")\n", 0, "a, b"), ("a) + b", ")\n", 1, ""), (")", ")", 1, "")],
)
def test_to_answer_inserts_nothing_twice(text: str, suffix: str, covered: int, inserted: str) -> None:
    answer = answer_to(Question(prefix="f(", suffix=suffix), infill(text, covered=covered))
    assert answer.best.text == inserted


def test_to_answer_cuts_at_the_first_stop_word() -> None:
    answer = answer_to(Question(prefix="", stop=("gamma", "beta")), infill("alpha beta gamma"))
    assert (answer.best.text, answer.best.stop, answer.best.stop_word) == ("alpha ", StopKind.WORD, "beta")


def test_to_answer_counts_tokens_as_the_engine_does_and_fewer_before_a_stop_word() -> None:
    def counted(text: str, *stop: str, num_tokens: int) -> tuple[int, StopKind]:
        best = answer_to(Question(prefix="", stop=stop), infill(text, num_tokens=num_tokens, is_cut=True)).best
        return best.num_tokens, best.stop

    assert counted("alpha beta", num_tokens=9) == (9, StopKind.LIMIT)
    assert counted("alpha beta", "beta", num_tokens=9) == (2, StopKind.WORD)
    assert counted("alpha beta", "beta", num_tokens=1) == (1, StopKind.WORD)
    assert counted("alpha beta", num_tokens=0) == (3, StopKind.LIMIT)


@pytest.mark.parametrize(
    ("finish", "stop"),
    [(Finish.STABLE, StopKind.END), (Finish.STEP_LIMIT, StopKind.LIMIT), (Finish.DEADLINE, StopKind.LIMIT)],
)
def test_to_answer_without_candidates_reads_the_limit_from_the_finish(finish: Finish, stop: StopKind) -> None:
    assert answer_to(Question(prefix=""), Infill(text="alpha", finish=finish, score=0.5)).best.stop is stop


def test_to_answer_with_nothing_left_is_one_empty_text() -> None:
    for found in (infill("alpha"), Infill(text="", finish=Finish.CANCELLED)):
        (text,) = answer_to(Question(prefix="", stop=("alpha",)), found).texts
        assert (text.text, text.score, text.stop) == ("", 0.0, StopKind.END)


def test_to_answer_has_the_line_ends_of_the_document() -> None:
    assert answer_to(Question(prefix="a\r\n"), infill("b\nc")).best.text == "b\r\nc"
    assert answer_to(Question(prefix="a", suffix="\r\nd"), infill("b\nc")).best.text == "b\r\nc"
    assert answer_to(Question(prefix="a", suffix="\nd"), infill("b\nc")).best.text == "b\nc"


def test_to_answer_of_a_warm_up_is_one_empty_text() -> None:
    (text,) = answer_to(Question(prefix="", max_tokens=0), infill("alpha", "beta")).texts
    assert (text.text, text.score, text.num_tokens) == ("", 0.0, 0)
    assert answer_to(Question(prefix="a\n"), infill("b\nc")).best.text == "b\nc"


def test_to_answer_gives_requests_that_share_the_work_different_first_texts() -> None:
    question, found = Question(prefix=""), infill("one", "two")
    assert [answer_to(question, found, first).best.text for first in range(3)] == ["one", "two", "one"]
