"""Committed results -> the figures that documents quote: `make figures` rewrites each quoted value from its JSON file.

A quoting row reads `| what | VALUE UNIT | target | `FILE.json: key.key` |`. Only VALUE is rewritten.

python engine/bench/documents/figures.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
RESULTS = (ROOT / "engine/bench/results", ROOT / "kernels/bench/results")
DOCUMENTS = (
    "README.md",
    "docs/PERFORMANCE.md",
    "docs/decisions/0018-text-from-other-files.md",
    "engine/dgemma_engine/embedded/README.md",
)
ROW = re.compile(
    r"^\| [^|\n]+ \| (?P<value>-?[\d.]+) \S+ \| [^|\n]+ \| `(?P<file>\w+\.json): (?P<key>[\w. ,]+)` \|$", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure that a document quotes.

    Attributes:
        document: path of the document, relative to the repository.
        source: file and key, as the document names them.
        quoted: what the document says.
        measured: what the result file says.
    """

    document: str
    source: str
    quoted: str
    measured: float


def main() -> int:
    """Returns 1 with `--check` where a document quotes another value than its result file holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a figure differs")
    args = parser.parse_args()
    stale = [figure for name in DOCUMENTS for figure in quoted(name) if float(figure.quoted) != figure.measured]
    for figure in stale:
        print(f"{figure.document}: {figure.source}: {figure.quoted} -> {figure.measured}")
    if args.check:
        return int(bool(stale))
    for name in dict.fromkeys(figure.document for figure in stale):
        path = ROOT / name
        path.write_text(ROW.sub(_rewritten, path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def quoted(document: str) -> Iterator[Figure]:
    """Yields the figures that a document quotes.

    Raises:
        KeyError: a row names a key that its result file lacks.
        OSError: a row names a result file that does not exist.
    """
    for row in ROW.finditer((ROOT / document).read_text(encoding="utf-8")):
        source = f"{row['file']}: {row['key']}"
        yield Figure(document=document, source=source, quoted=row["value"], measured=_measured(row))


def _measured(row: re.Match[str]) -> float:
    paths = [folder / row["file"] for folder in RESULTS]
    path = next((path for path in paths if path.exists()), paths[0])
    found = json.loads(path.read_text(encoding="utf-8"))
    for part in row["key"].split("."):
        found = found[part]
    return found


def _rewritten(row: re.Match[str]) -> str:
    start, end = row.start("value") - row.start(), row.end("value") - row.start()
    return f"{row[0][:start]}{_measured(row)}{row[0][end:]}"


if __name__ == "__main__":
    sys.exit(main())
