"""Reuse of an earlier answer after more text was typed, with the cursor as `|`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.completion.cache import AnswerCache, AnswerMatch, CursorFingerprint, EngineAnswer, accepted, resume
from dgemma_lsp.request import Request, Selected, Trigger, as_if_accepted, build_completions
from tests.lsp.cursor import split_cursor
from tests.lsp.shaped_infill import shaped_infill


def request(marked: str, uri: str = "file:///w/a.py") -> Request:
    text, offset = split_cursor(marked)
    return Request(uri=uri, version=1, text=text, offset=offset)


def answer(marked: str, *texts: str, finish: Finish = Finish.STABLE) -> EngineAnswer:
    asked = request(marked)
    infill = shaped_infill(asked, *texts) if texts else Infill(text="", finish=finish)
    return EngineAnswer(fingerprint=CursorFingerprint.of(asked), infill=infill)


def matches(store: AnswerCache, asked: Request) -> list[AnswerMatch]:
    return list(store.matches(asked, CursorFingerprint.of(asked)))


def left_over(store: AnswerCache, marked: str) -> str | None:
    """What the document becomes when the completion served at `|` is accepted; None if nothing serves."""
    asked = request(marked)
    for match in matches(store, asked):
        is_here = not match.num_typed
        completions = build_completions(asked, match.answer.infill) if is_here else resume(asked, match)
        if completions:
            return accepted(asked, completions[0]).text
    return None


@pytest.mark.parametrize(
    ("before", "texts", "now", "after"),
    [
        ("x = |\n", ("value(1)",), "x = |\n", "x = value(1)\n"),
        ("x = |\n", ("value(1)",), "x = va|\n", "x = value(1)\n"),
        ("x = |\n", ("value(1)",), "x = value(1|\n", "x = value(1)\n"),
        ("x = |\n", ("value(1)",), "x = value(1)|\n", None),  # Nothing is left over.
        ("x = |b\n", ("a ",), "x = a|b\n", None),  # Only white space is left over.
        ("x = |\n", ("value(1)",), "x = vb|\n", None),
        ("x = |\n", ("value(1)",), "y = va|\n", None),  # The text before is another.
        ("x = |\n", ("value(1)",), "x = va|\ny\n", None),  # The text after is another.
        ("x = |\n", ("value(1)",), "x =|\n", None),  # The cursor is left of the request's.
        ("x = |\n", ("value(1)", "other"), "x = o|\n", "x = other\n"),
        ("x = |\n", ("value(1)",), "x = value(|)\n", "x = value(1)\n"),  # The editor closed the bracket.
        ("x = foo|\n", ("(a, 'b')",), "x = foo(a, '|')\n", "x = foo(a, 'b')\n"),
        ("x = foo(|)\n", ("a).b",), "x = foo(a)|\n", "x = foo(a).b\n"),  # The user typed over the closer.
        ("x = foo(|)\n", ("a).b",), "x = foo(a|]\n", None),
        ("def f():\n    |\n", ("a = 1\n    b = 2",), "def f():\n    a|\n", "def f():\n    a = 1\n    b = 2\n"),
        ("def f():|\n", ("\n    a = 1",), "def f():\n    |\n", "def f():\n    a = 1\n"),
        ("def f():|\r\n", ("\n    a = 1",), "def f():\r\n    |\r\n", "def f():\r\n    a = 1\r\n"),
        ("😋 = |\n", ("e\u0301l",), "😋 = e|\n", "😋 = e\u0301l\n"),
    ],
)
def test_typed_through(before: str, texts: tuple[str, ...], now: str, after: str | None) -> None:
    store = AnswerCache()
    store.put(answer(before, *texts))
    assert left_over(store, now) == after


def test_several_lines_stay_several_while_they_are_typed() -> None:
    """A new request at the cursor would be limited to the rest of the line."""
    asked = request("def f():\n    a = |\n")
    store = AnswerCache()
    store.put(answer("def f():\n    |\n", "a = 1\n    return a"))
    (match,) = matches(store, asked)
    (completion, *_) = resume(asked, match)
    assert completion.inserted == "1\n    return a"
    assert (completion.text, completion.version) == ("    a = 1\n    return a", 1)


def test_explicit_request_gets_every_candidate_that_matches() -> None:
    store = AnswerCache()
    store.put(answer("x = |\n", "value(1)", "other", "value(2)", "value(1)"))
    asked = request("x = va|\n")
    (match,) = matches(store, asked)
    assert [completion.inserted for completion in resume(asked, match)] == ["lue(1)", "lue(2)"]
    automatic = replace(asked, trigger=Trigger.AUTOMATIC)
    assert [completion.inserted for completion in resume(automatic, match)] == ["lue(1)"]


def test_selected_entry_counts_as_typed() -> None:
    """`va` is typed, and the menu has `value` selected: the answer continues after `value`."""
    store = AnswerCache()
    store.put(answer("x = |\n", "value(1)"))
    asked = replace(request("x = va|\n"), selected=Selected(start=4, end=6, text="value"))
    (match,) = matches(store, as_if_accepted(asked))
    (completion,) = resume(asked, match)
    assert (completion.lead, completion.inserted) == ("value", "(1)")
    assert (completion.start, completion.cursor, completion.end) == (4, 6, 6)
    assert accepted(asked, completion).text == "x = value(1)\n"
    assert accepted(asked, completion).selected is None


def test_empty_answer_is_reused_at_its_own_position_only() -> None:
    store = AnswerCache()
    store.put(answer("x = |\n", finish=Finish.EMPTY))
    assert [match.answer.infill.text for match in matches(store, request("x = |\n"))] == [""]
    assert not (matches(store, request("x = a|\n")))


@pytest.mark.parametrize("finish", [Finish.CANCELLED, Finish.DEADLINE])
def test_answer_that_was_cut_off_is_not_kept(finish: Finish) -> None:
    store = AnswerCache()
    store.put(answer("x = |\n", finish=finish))
    assert not store.has(CursorFingerprint.of(request("x = |\n")))


def test_least_recently_used_goes_first() -> None:
    store = AnswerCache(num_answers=2)
    first, second, third = (answer(f"{name} = |\n", "1") for name in "abc")
    store.put(first)
    store.put(second)
    assert store.use(first)
    assert not store.use(first), "used before"
    store.put(third)
    assert store.has(first.fingerprint)
    assert not store.has(second.fingerprint)
    assert not store.use(second), "dropped"


def test_forget_drops_one_document_and_clear_all() -> None:
    store = AnswerCache()
    store.put(answer("x = |\n", "1"))
    store.put(
        EngineAnswer(
            fingerprint=CursorFingerprint.of(request("x = |\n", "file:///w/b.py")), infill=answer("|", "1").infill
        )
    )
    store.forget("file:///w/a.py")
    assert left_over(store, "x = |\n") is None
    assert matches(store, request("x = |\n", "file:///w/b.py"))
    store.clear()
    assert not (matches(store, request("x = |\n", "file:///w/b.py")))


def test_fingerprint_holds_no_text() -> None:
    place = CursorFingerprint.of(request("secret = |)" + "tail" * 100))
    assert place.closers == ")"
    assert "secret" not in repr(place)
    assert "tail" not in repr(place)


def test_store_refuses_a_negative_size() -> None:
    with pytest.raises(ValueError, match=r"num_entries=-1 must not be negative"):
        AnswerCache(num_answers=-1)


def test_accepted_text_has_the_line_ends_of_the_document():
    for end in ("\n", "\r\n"):
        text = f"a = 1{end}if a:{end}    "
        asked = Request(uri="u", version=1, text=text, offset=len(text), language="python", trigger=Trigger.INVOKED)
        (completion,) = build_completions(asked, shaped_infill(asked, "b = 2\n    c = 3"))
        following = accepted(asked, completion)
        assert following.text == f"{text}b = 2{end}    c = 3"
        assert following.offset == len(following.text)
        assert following.trigger is Trigger.AUTOMATIC, "the user did not ask for it"
