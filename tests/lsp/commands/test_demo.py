"""The demo's verdict on an answer: right where accepting it restores the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgemma_lsp.answer import build_completions
from dgemma_lsp.commands.complete import Answer, request_at
from dgemma_lsp.commands.demo import is_right
from dgemma_lsp.commands.file_location import FilePosition
from tests.lsp.shaped_infill import shaped_infill

FILE = Path("a.py").absolute()


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
    request = request_at(place, deadline_ms=1_000)
    infill = shaped_infill(request, written)
    completion = next(iter(build_completions(request, infill)), None)
    answer = Answer(request=request, infill=infill, completion=completion, wall_ms=1.0)
    assert is_right(answer, truth) is right
