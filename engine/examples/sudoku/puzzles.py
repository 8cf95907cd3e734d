"""Sudoku puzzles with exactly one solution, from easy to hard by their number of clues, seeded.

Up to 1,000 grids are made by emptying cells one after the other as long as a solver finds exactly one solution.
Every puzzle is such a grid under a random symmetry of Sudoku (digits, rows, columns, bands, stacks, transposition),
which changes every cell and keeps the solution unique.

Cells are numbered row by row, 0 to 80; a grid is a list of 81 digits, 0 for an empty cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

_ALL = 0b111111111
_ROW = [cell // 9 for cell in range(81)]
_COLUMN = [cell % 9 for cell in range(81)]
_BOX = [cell // 27 * 3 + cell % 9 // 3 for cell in range(81)]
_NUM_DUG = 1_000


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A puzzle: its clues, 0 where a cell is empty, and its only solution, as 81 digits each."""

    clues: tuple[int, ...]
    solution: tuple[int, ...]

    @property
    def num_clues(self) -> int:
        """Cells that are not empty."""
        return sum(digit > 0 for digit in self.clues)


@dataclass(frozen=True, slots=True)
class _Dug:
    """A solution, and its cells in the order in which they were emptied."""

    solution: list[int]
    emptied: list[int]


def puzzles(count: int, *, fewest_clues: int, most_clues: int, seed: int) -> Iterator[Puzzle]:
    """Yields puzzles.

    Args:
        count: how many.
        fewest_clues: 24 or more; few grids can be emptied further.
        most_clues: 80 or fewer; the number of clues of a puzzle is uniform between both.
        seed: the same seed gives the same puzzles, another one puzzles from other grids.
    """
    random = Random(seed)
    dug = list[_Dug]()
    while len(dug) < min(count, _NUM_DUG):
        made = _dig(random, fewest_clues)
        if 81 - len(made.emptied) <= fewest_clues:
            dug.append(made)
    for _ in range(count):
        made = random.choice(dug)
        emptied = made.emptied[: 81 - random.randint(fewest_clues, most_clues)]
        clues = list(made.solution)
        for cell in emptied:
            clues[cell] = 0
        cells, digits = _symmetry(random)
        yield Puzzle(tuple(digits[clues[cell]] for cell in cells), tuple(digits[made.solution[cell]] for cell in cells))


def count_solutions(grid: Sequence[int], most: int) -> int:
    """Returns how many solutions a grid has, at most `most`; 0 where two clues contradict each other."""
    state = _State.of(grid)
    return 0 if state is None else state.count(most)


class _State:
    """A grid as bit masks of the digits that each row, column and box holds."""

    def __init__(self) -> None:
        self.rows, self.columns, self.boxes = [0] * 9, [0] * 9, [0] * 9
        self.digits = [0] * 81
        self.empty = set(range(81))

    @classmethod
    def of(cls, grid: Sequence[int]) -> _State | None:
        state = cls()
        for cell, digit in enumerate(grid):
            if digit:
                if not state.candidates(cell) & 1 << digit - 1:
                    return None
                state.put(cell, digit)
        return state

    def candidates(self, cell: int) -> int:
        return _ALL & ~(self.rows[_ROW[cell]] | self.columns[_COLUMN[cell]] | self.boxes[_BOX[cell]])

    def put(self, cell: int, digit: int) -> None:
        self._flip(cell, digit)
        self.digits[cell] = digit
        self.empty.remove(cell)

    def clear(self, cell: int) -> None:
        self._flip(cell, self.digits[cell])
        self.digits[cell] = 0
        self.empty.add(cell)

    def count(self, most: int, random: Random | None = None) -> int:
        """Returns the number of solutions up to `most`; one that ends the search stays in `digits`."""
        if not self.empty:
            return 1
        cell, found = self._narrowest(), 0
        mask = self.candidates(cell)
        order = [digit for digit in range(1, 10) if mask & 1 << digit - 1]
        if random is not None:
            random.shuffle(order)
        for digit in order:
            self.put(cell, digit)
            found += self.count(most - found, random)
            if found >= most:
                return found
            self.clear(cell)
        return found

    def _flip(self, cell: int, digit: int) -> None:
        bit = 1 << digit - 1
        self.rows[_ROW[cell]] ^= bit
        self.columns[_COLUMN[cell]] ^= bit
        self.boxes[_BOX[cell]] ^= bit

    def _narrowest(self) -> int:
        best, fewest = -1, 10
        for cell in self.empty:
            num = self.candidates(cell).bit_count()
            if num < fewest:
                best, fewest = cell, num
                if num < 2:
                    break
        return best


def _dig(random: Random, fewest_clues: int) -> _Dug:
    """Empties the cells of a random grid in random order, each one whose digit the others still imply."""
    full = _State()
    full.count(1, random)
    solution, emptied = list(full.digits), list[int]()
    grid = list(solution)
    for cell in random.sample(range(81), 81):
        grid[cell] = 0
        if _has_other(grid, cell, solution[cell]):
            grid[cell] = solution[cell]
        else:
            emptied.append(cell)
            if 81 - len(emptied) == fewest_clues:
                break
    return _Dug(solution, emptied)


def _has_other(grid: Sequence[int], cell: int, digit: int) -> bool:
    """Whether a grid has a solution with another digit in an empty cell."""
    state = _State.of(grid)
    assert state is not None, "dug from a solution"
    mask = state.candidates(cell) & ~(1 << digit - 1)
    for other in range(1, 10):
        if mask & 1 << other - 1:
            state.put(cell, other)
            if state.count(1):
                return True
            state.clear(cell)
    return False


def _symmetry(random: Random) -> tuple[list[int], list[int]]:
    """Returns which cell comes to each place, and which digit each digit becomes; 0 stays 0."""

    def lines() -> list[int]:
        return [3 * band + line for band in random.sample(range(3), 3) for line in random.sample(range(3), 3)]

    rows, columns = lines(), lines()
    cells = [9 * row + column for row in rows for column in columns]
    if random.random() < 0.5:
        cells = [9 * row + column for column in columns for row in rows]
    return cells, [0, *random.sample(range(1, 10), 9)]
