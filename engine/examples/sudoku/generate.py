"""Writes Sudoku puzzles as rows of a task, one JSON object a line.

    python engine/examples/sudoku/generate.py puzzles.jsonl --count 60000 --clues 30 60 --seed 0

A row is a line of 81 names of cells, always the same, and then the grid, 81 digits, of which those that are no clues
are free. The names show a model which cell is which: rotary position embeddings encode only how far two tokens
are apart.
"""

from __future__ import annotations

import argparse
import json
import string
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from puzzles import Puzzle, puzzles

CELL_NAMES = "".join(c for c in string.ascii_letters + string.punctuation if c not in '"\\')[:81]
"""One character for each cell, row by row."""


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Writes Sudoku puzzles as rows of a task.")
    parser.add_argument("out", type=Path, metavar="FILE", help="JSONL file to write")
    parser.add_argument("--count", type=int, default=60_000, help="puzzles (default: 60000)")
    parser.add_argument(
        "--clues", type=int, nargs=2, default=(30, 60), metavar=("FEWEST", "MOST"), help="of each (default: 30 60)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other grids (default: 0)")
    arguments = parser.parse_args()
    fewest, most = arguments.clues
    if not 24 <= fewest <= most <= 80:
        parser.error(f"--clues {fewest} {most}: must be from 24 to 80, the fewest first")
    with arguments.out.open("w", encoding="utf-8") as file:
        for puzzle in puzzles(arguments.count, fewest_clues=fewest, most_clues=most, seed=arguments.seed):
            file.write(json.dumps({"parts": list(parts(puzzle))}) + "\n")


def parts(puzzle: Puzzle) -> Iterator[dict[str, str]]:
    """Yields the parts of a puzzle's row."""
    yield {"given": f"{CELL_NAMES}\n"}
    for is_clue, run in groupby(zip(puzzle.clues, puzzle.solution, strict=True), key=lambda pair: pair[0] > 0):
        yield {"given" if is_clue else "free": "".join(str(digit) for _clue, digit in run)}


if __name__ == "__main__":
    main()
