from __future__ import annotations

from collections.abc import Mapping

import pytest

from dgemma_lsp.metrics.acceptance import Suggestions, num_kept
from dgemma_lsp.request import Completion
from tests.lsp.cursor import split_cursor

URI = "file:///w/a.py"
SUGGESTED = {"suggestions": 1}


def accepted(characters: int, *, partly: bool = False) -> Mapping[str, int]:
    return {"partly_accepted" if partly else "accepted": 1, "characters_accepted": characters}


def judged(after_s: int, *, kept: bool, characters: int, characters_kept: int) -> Mapping[str, int]:
    return {
        f"judged_{after_s}_s": 1,
        f"kept_{after_s}_s": kept,
        f"characters_judged_{after_s}_s": characters,
        f"characters_kept_{after_s}_s": characters_kept,
    }


WHOLE = accepted(12)


class Window:
    """One document, a suggestion in it, and a clock that is moved by hand."""

    def __init__(self, marked: str, inserted: str, *, covered: int = 0) -> None:
        self.events: list[Mapping[str, int]] = []
        self.now_s = 0.0
        self.tested = Suggestions(self.events.append, clock=lambda: self.now_s)
        self.text, self.cursor = split_cursor(marked)
        self.number = self.offer(inserted, covered=covered)

    def offer(self, inserted: str, *, covered: int = 0) -> int:
        start = self.text.rfind("\n", 0, self.cursor) + 1
        completion = Completion(
            lead=self.text[start : self.cursor],
            inserted=inserted,
            start=start,
            cursor=self.cursor,
            end=self.cursor + covered,
            version=1,
        )
        return self.tested.offer(URI, self.text, [completion])[0]

    def become(self, marked: str) -> None:
        new, self.cursor = split_cursor(marked)
        old, self.text = self.text, new
        self.tested.change(URI, old, new)

    def accept(self, number: int | None = None) -> None:
        self.tested.accept(self.number if number is None else number, lambda _uri: self.text)

    def accepted(self) -> list[Mapping[str, int]]:
        return [event for event in self.events if "characters_accepted" in event]

    def judged(self) -> list[Mapping[str, int]]:
        return [event for event in self.events if any(name.startswith("judged_") for name in event)]


def test_accepting_by_command_after_the_edit():
    window = Window("x = |\ny\n", "f(1)")
    window.become("x = f(1)|\ny\n")
    window.accept()
    assert window.events == [SUGGESTED, accepted(4)]


def test_accepting_what_extends_the_selected_menu_entry():
    window = Window("foo.b|\n", "(1)")
    completion = Completion(lead="baz", inserted="_all()", start=4, cursor=5, end=5, version=1)
    [number] = window.tested.offer(URI, window.text, [completion])
    window.become("foo.baz_all()|\n")
    window.accept(number)
    assert window.accepted() == [accepted(6)]


def test_accepting_by_command_before_the_edit():
    window = Window("x = |\n", "f(1)")
    window.accept()
    window.become("x = f(1)|\n")
    assert window.accepted() == [accepted(4)]


def test_accepting_without_a_command():
    window = Window("def f():\n    |\n", "return area()")
    window.become("def f():\n    return area()|\n")
    assert window.accepted() == [accepted(13)]


def test_short_suggestion_needs_the_command():
    window = Window("f(|\n", "1)")
    window.become("f(1)|\n")
    assert window.accepted() == []
    window.accept()
    assert window.accepted() == [accepted(2)]


def test_covered_rest_of_the_line():
    window = Window("print(area(|))\n", "w, h))", covered=2)
    window.become("print(area(w, h))|\n")
    assert window.accepted() == [accepted(6)]


def test_document_with_crlf():
    window = Window("a\r\nif x:|\r\nb\r\n", "\n    y = 1\n    z")
    window.become("a\r\nif x:\r\n    y = 1\r\n    z|\r\nb\r\n")
    assert window.accepted() == [accepted(18)]


def test_typing_through_is_no_acceptance_and_no_new_suggestion():
    window = Window("x = |\n", "area(width)")
    for end in range(1, 6):
        window.become(f"x = {'area(width)'[:end]}|\n")
        assert window.offer("area(width)"[end:]) == window.number
    window.become("x = area(2|\n")
    assert window.events == [SUGGESTED]


def test_pieces_are_accepted_in_part_once():
    window = Window("x = |\n", "area(width, height)")
    window.become("x = area(|\n")
    window.become("x = area(width|\n")
    window.become("x = area(width-|\n")
    assert window.events == [SUGGESTED, accepted(10, partly=True)]


@pytest.mark.parametrize("is_told_first", [False, True])
def test_piece_that_the_client_reports_counts_once_however_short(*, is_told_first: bool):
    window = Window("x = |\ny\n", "f\U0001f600(1)")
    tell = lambda num_units: window.tested.accept_part(window.number, num_units)  # noqa: E731
    # "x = " and two characters, the second of which has two code units.
    steps = [lambda: tell(7), lambda: window.become("x = f\U0001f600|\ny\n")]
    for step in steps if is_told_first else reversed(steps):
        step()
    tell(2)
    tell(-1)
    window.become("z|\n")
    assert window.accepted() == [accepted(2, partly=True)]


@pytest.mark.parametrize("is_told_first", [False, True])
def test_long_piece_that_the_client_reports_counts_once(*, is_told_first: bool):
    window = Window("x = |\ny\n", "f(1) + g(2)")
    steps = [lambda: window.tested.accept_part(window.number, 8), lambda: window.become("x = f(1)|\ny\n")]
    for step in steps if is_told_first else reversed(steps):
        step()
    window.become("z|\n")
    assert window.accepted() == [accepted(4, partly=True)]


def test_display_counts_once_for_a_suggestion_that_stands():
    window = Window("x = |\ny\n", "f(1)")
    first, second = several(window, "f(1)", "g(1)")
    for number in (first, first, second, second + 7):
        window.tested.display(number)
    window.become("z|\n")
    window.tested.display(second)
    assert window.events.count({"displayed": 1}) == 1


def test_last_piece_makes_the_acceptance_whole():
    window = Window("x = |\n", "area(width)")
    window.become("x = area|\n")
    window.become("x = area(width)|\n")
    assert window.accepted() == [accepted(11)]


def test_other_edits_are_no_acceptance():
    for marked in ("x = other|\n", "x = |\nmore\n", "# x = f(1)|\n", "|", "x = area(width) + area|\n"):
        window = Window("x = |\n", "area(width)")
        window.become(marked)
        window.tested.end()
        assert window.accepted() == [], marked


def test_unknown_and_repeated_numbers_are_passed_over():
    window = Window("x = |\n", "area(width)")
    window.accept(999)
    window.become("x = area(width)|\n")
    window.accept()
    window.accept()
    assert len(window.accepted()) == 1


def test_kept_after_both_times_and_moved_by_edits():
    window = Window("x = |\n", "area(width)")
    window.become("x = area(width)|\n")
    window.now_s = 29
    window.become("import os|\nx = area(width)\n")
    assert window.judged() == []
    window.now_s = 31
    window.become("import os|\nx = area(wide)\n")
    window.now_s = 301
    window.tested.settle()
    assert window.judged() == [
        judged(30, kept=True, characters=11, characters_kept=11),
        judged(300, kept=True, characters=11, characters_kept=8),
    ]


def test_late_judgement_uses_the_text_of_the_time_it_was_due():
    window = Window("x = |\n", "area(width)")
    window.become("x = area(width)|\n")
    window.now_s = 250
    window.become("x = |\n")
    assert window.judged() == [judged(30, kept=True, characters=11, characters_kept=11)]
    window.now_s = 300
    window.tested.settle()
    assert window.judged()[1:] == [judged(300, kept=False, characters=11, characters_kept=0)]


def test_undone_is_not_kept():
    window = Window("x = |\n", "area(width)")
    window.become("x = area(width)|\n")
    window.become("x = |\n")
    window.now_s = 30
    window.tested.settle()
    assert window.judged() == [judged(30, kept=False, characters=11, characters_kept=0)]


def test_closed_document_is_not_judged():
    window = Window("x = |\n", "area(width)")
    window.become("x = area(width)|\n")
    window.tested.close(URI)
    window.now_s = 400
    window.tested.settle()
    assert window.judged() == []


def test_memory_is_bounded():
    window = Window("|", "area(width)")
    for _ in range(300):
        window.become("area(width)|")
        window.become("|")
        window.offer("area(width)")
    window.tested.settle()
    window.now_s = 30
    window.tested.settle()
    assert len(window.judged()) == 200


def several(window: Window, *texts: str) -> list[int]:
    start = window.text.rfind("\n", 0, window.cursor) + 1
    lead = window.text[start : window.cursor]
    forms = [
        Completion(lead=lead, inserted=text, start=start, cursor=window.cursor, end=window.cursor, version=1)
        for text in texts
    ]
    return window.tested.offer(URI, window.text, forms)


def test_any_of_several_can_be_accepted_and_all_are_one_suggestion():
    window = Window("x = |\n", "area(width)")
    numbers = several(window, "area(width)", "area(height)", "volume()")
    assert numbers[0] == window.number and len(set(numbers)) == 3
    window.become("x = volume()|\n")
    window.accept(numbers[2])
    assert window.events == [SUGGESTED, accepted(8)]
    window.accept(numbers[0])
    assert len(window.events) == 2


def test_piece_of_the_second_of_several_is_counted_once():
    window = Window("x = |\n", "area(width)")
    several(window, "area(width)", "area(height)")
    window.become("x = area(|\n")
    window.become("x = area(heig|\n")
    window.become("x = area(heig!|\n")
    assert window.events == [SUGGESTED, accepted(9, partly=True)]


def test_second_of_several_without_a_command():
    window = Window("x = |\n", "area(width)")
    several(window, "area(width)", "area(height)")
    window.become("x = area(height)|\n")
    assert window.accepted() == [accepted(12)]


@pytest.mark.parametrize(
    ("inserted", "now", "expected"),
    [
        ("return x", "return x", 8),
        ("return x", "    return x  # yes", 8),
        ("return x", "", 0),
        ("return first", "return second", 7),
        ("foo(alpha, beta)", "foo(alpha, gamma, beta)", 16),
        ("abc", "a-b-c", 0),
        (")", ")", 1),
        ("", "anything", 0),
    ],
)
def test_num_kept(inserted: str, now: str, expected: int):
    assert num_kept(inserted, now) == expected


def test_long_texts_are_counted_from_their_beginning():
    text = "".join(f"line {i}\n" for i in range(2_000))
    assert num_kept(text, text.replace("line 1\n", "line one\n", 1)) > 0.95 * len(text)
    assert num_kept("a" * 20_000, "b" * 20_000) == 0
