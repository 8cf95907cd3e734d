"""The demo's places, and its verdict on an answer: right where accepting it restores the document."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.commands.complete import Answer, render
from dgemma_lsp.commands.complete import request_at as request_at_place
from dgemma_lsp.commands.demo import FILES, is_right, percentile, read_places
from dgemma_lsp.commands.file_location import FilePosition, language_of
from dgemma_lsp.request import Trigger, build_completions
from tests.lsp.cursor import request_at
from tests.lsp.shaped_infill import shaped_infill

FILE = Path("a.py").absolute()


def test_eight_places_in_four_languages_hold_what_was_taken_out() -> None:
    places = read_places()
    assert len(places) == 8
    assert {language_of(one.place.path) for one in places} == {"python", "typescript", "go", "rust"}
    for one in places:
        text, offset = one.place.text, one.place.offset
        assert text[:offset] + one.truth + text[offset:] == one.place.path.read_text(encoding="utf-8")


def test_every_file_of_the_demo_is_used() -> None:
    assert {path.name for path in FILES.iterdir()} - {"places.json"} == {one.place.path.name for one in read_places()}


@pytest.mark.parametrize(
    ("text", "written", "truth", "right"),
    [
        ("total = |\n", "a + b", "a + b", True),
        ("total = |\n", "a - b", "a + b", False),
        ("total = |\n", "a + b", "a + b  ", True),
        ("total = f(|)\n", "a)", "a", True),
        ("total = |\n", "", "", False),
    ],
)
def test_answer_is_right_where_it_restores_the_document(text: str, written: str, truth: str, right: bool) -> None:
    place = FilePosition(path=FILE, text=text.replace("|", ""), offset=text.index("|"))
    request = request_at_place(place, trigger=Trigger.AUTOMATIC, deadline_ms=1_000)
    infill = shaped_infill(request, written)
    completion = next(iter(build_completions(request, infill)), None)
    answer = Answer(request=request, infill=infill, completion=completion, wall_ms=1.0)
    assert is_right(answer, truth) is right


def test_percentile() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
    assert percentile([7.0], 95) == 7.0


def test_render_hides_control_characters() -> None:
    request = request_at("a\x1b[31m = |")
    answer = Answer(request=request, infill=Infill(text="", finish=Finish.EMPTY), completion=None, wall_ms=1.0)
    assert "\x1b" not in render(answer, colour=False)
    assert render(answer, colour=True).count("\x1b[31m") == 0
