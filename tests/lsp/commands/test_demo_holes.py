from __future__ import annotations

from pathlib import Path

from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.commands.complete import Answer, render
from dgemma_lsp.commands.demo import percentile, read_sources
from dgemma_lsp.commands.demo_holes import find_holes
from tests.lsp.cursor import request_at

KINDS = [
    "whole line",
    "rest of line",
    "inside call brackets",
    "empty body",
    "docstring",
    "between two functions",
    "end of file",
    "a line with an astral character before the cursor",
]


def test_every_kind_is_found_and_its_truth_fits():
    sources = read_sources()
    holes = find_holes(sources)
    assert [hole.kind for hole in holes] == KINDS
    for hole in holes:
        place = hole.place
        assert hole.truth.strip()
        whole = place.text[: place.offset] + hole.truth + place.text[place.offset :]
        assert whole == sources[place.path] or hole.note


def test_every_kind_is_found_in_the_standard_library_alone():
    repository = Path(__file__).parents[3]
    sources = {path: text for path, text in read_sources().items() if not path.is_relative_to(repository)}
    assert [hole.kind for hole in find_holes(sources)] == KINDS


def test_astral_character_stands_before_the_cursor():
    hole = find_holes(read_sources())[-1]
    line = hole.place.text[: hole.place.offset].rpartition("\n")[2]
    assert any(ord(character) > 0xFFFF for character in line)


def test_real_astral_line_is_preferred():
    hole = find_holes({Path("a.py"): "face = '😋' + name\n"})[-1]
    assert (hole.truth, hole.note) == ("' + name", "")


def test_no_source_no_hole():
    assert find_holes({}) == []
    assert find_holes({Path("empty.py"): ""}) == []


def test_percentile():
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
    assert percentile([7.0], 95) == 7.0


def test_render_hides_control_characters():
    request = request_at("a\x1b[31m = |")
    answer = Answer(request=request, infill=Infill(text="", finish=Finish.EMPTY), completion=None, wall_ms=1.0)
    assert "\x1b" not in render(answer, colour=False)
    assert render(answer, colour=True).count("\x1b[31m") == 0
