"""Where a benchmark of a real editor types a key: lines of the standard library's files, each cut in its middle."""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODULES = ("textwrap.py", "heapq.py", "shlex.py", "queue.py", "csv.py", "fractions.py", "tarfile.py", "json/decoder.py")
STATEMENT = re.compile(r"    +(?:self\.|return |if |for |while |raise |\w+ = )[^#'\"]{14,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CutLine:
    """A place in a text.

    Attributes:
        row: of the line, from 0.
        cut: the column from which the line is cut off, from 0.
        key: the first character that is cut off.
    """

    row: int
    cut: int
    key: str


def visits(keys: re.Pattern[str], num_places: int) -> Iterator[tuple[str, list[CutLine]]]:
    """Yields texts, each with a few places.

    One file after the other, as a person works; then all of them again with other lines, until no line is left.

    Args:
        keys: matches a key that may be typed.
        num_places: the most in one visit.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    texts = {module: (folder / module).read_text(encoding="utf-8") for module in MODULES}
    left = {module: _places(text, keys) for module, text in texts.items()}
    while any(left.values()):
        for module, text in texts.items():
            yield text, left[module][:num_places]
            del left[module][:num_places]


def _places(text: str, keys: re.Pattern[str]) -> list[CutLine]:
    places: list[CutLine] = []
    for row, line in enumerate(text.splitlines()):
        cut = len(line) - len(line.lstrip()) + len(line.strip()) // 2
        if STATEMENT.fullmatch(line) and keys.fullmatch(line[cut]):
            places.append(CutLine(row=row, cut=cut, key=line[cut]))
    random.Random(0).shuffle(places)
    return places
