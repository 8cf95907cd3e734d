"""Puzzles have one solution and as many clues as asked for; the page holds a recording and fetches nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.tools.tasks.task_rows import read_rows

SUDOKU = Path(__file__).parents[3] / "engine" / "examples" / "sudoku"


@pytest.fixture
def sudoku(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Returns the function that imports a module of the example, which is run as a script."""
    monkeypatch.syspath_prepend(str(SUDOKU))

    def load(name: str) -> Any:
        import importlib

        return importlib.import_module(name)

    return load


def solves(solution: tuple[int, ...]) -> bool:
    """Whether every row, column and box holds each digit once."""
    units = [[9 * row + column for column in range(9)] for row in range(9)]
    units += [[9 * row + column for row in range(9)] for column in range(9)]
    units += [
        [9 * (3 * band + row) + 3 * stack + column for row in range(3) for column in range(3)]
        for band in range(3)
        for stack in range(3)
    ]
    return all({solution[cell] for cell in unit} == set(range(1, 10)) for unit in units)


def test_puzzles_have_one_solution_and_the_clues_asked_for(sudoku: Callable[[str], Any]) -> None:
    module = sudoku("puzzles")
    made = list(module.puzzles(24, fewest_clues=30, most_clues=34, seed=1))
    assert {puzzle.num_clues for puzzle in made} == {30, 31, 32, 33, 34}
    for puzzle in made:
        assert solves(puzzle.solution)
        assert module.count_solutions(puzzle.clues, 2) == 1
        assert all(clue in (0, digit) for clue, digit in zip(puzzle.clues, puzzle.solution, strict=True))
    assert len({puzzle.solution for puzzle in made}) == len(made)
    assert made == list(module.puzzles(24, fewest_clues=30, most_clues=34, seed=1))
    assert made != list(module.puzzles(24, fewest_clues=30, most_clues=34, seed=2))


def test_solutions_are_counted(sudoku: Callable[[str], Any]) -> None:
    module = sudoku("puzzles")
    (puzzle,) = module.puzzles(1, fewest_clues=40, most_clues=40, seed=0)
    assert module.count_solutions([0] * 81, 5) == 5
    assert module.count_solutions(puzzle.solution, 2) == 1
    clash = list(puzzle.solution)
    clash[0] = clash[1]
    assert module.count_solutions(clash, 2) == 0


def test_rows_are_a_task(tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    command = [sys.executable, str(SUDOKU / "generate.py"), str(out), "--count", "5", "--clues", "40", "41"]
    subprocess.run(command, check=True)
    rows = list(read_rows(out))
    assert len(rows) == 5
    names = {row.parts[0].text for row in rows}
    assert len(names) == 1 and len(set(names.pop() or "")) == 82
    for row in rows:
        assert len("".join(part.text or "" for part in row.parts[1:])) == 81
        assert sum(len(part.text or "") for part in row.parts if part.kind == "free") in (40, 41)
    refused = subprocess.run([*command[:-2], "3", "41"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "--clues 3 41: must be from 24 to 80" in refused.stderr


def test_page_holds_the_recording_and_fetches_nothing(sudoku: Callable[[str], Any]) -> None:
    data = {"cells": [{"digit": "5", "free": True}], "steps": [], "most_steps": 48, "right": 0, "model": "</script>"}
    page = sudoku("page").to_html(data)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None and json.loads(found.group(1)) == data
    assert "{{" not in page and not re.search(r"(?:src|href)=\"http|url\(|@import", page)
