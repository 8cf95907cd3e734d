"""`dgemma-engine holes`: cuts holes of several kinds into a source tree and writes them to a file for `eval`."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from dgemma_engine.argument_numbers import not_negative, positive
from dgemma_engine.errors import EngineError, FormatError
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a source tree, or a corpus (its held-out split)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write: .jsonl or .jsonl.gz")
    parser.add_argument("--count", type=positive, default=200, metavar="N", help="holes of each kind (default: 200)")
    kinds = [kind.value for kind in HoleKind]
    parser.add_argument(
        "--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND", help=f"of {', '.join(kinds)} (default: all)"
    )
    parser.add_argument(
        "--glob", action="append", metavar="PATTERN", help="files of a source tree to take; repeatable (default: *.py)"
    )
    parser.add_argument(
        "--snippets", type=not_negative, default=0, metavar="N", help="neighbouring files quoted per hole (default: 0)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="same seed, same holes (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        EngineError: there is nothing to cut holes into, or the file cannot be written.
    """
    from dgemma_engine.tools.evaluation.holes.cutting import HoleCutter
    from dgemma_engine.tools.evaluation.holes.hole_files import to_record
    from dgemma_engine.tools.evaluation.holes.source_files import is_corpus, read_sources

    if not arguments.out.name.endswith((".jsonl", ".jsonl.gz")):
        # A mistyped name must not cost a source file.
        raise FormatError(f"{arguments.out}: must end in .jsonl or .jsonl.gz; choose another --out")
    if arguments.snippets and is_corpus(arguments.folder):
        raise FormatError(f"{arguments.folder}: a corpus keeps no folders; leave --snippets out or name a source tree")
    files = read_sources(arguments.folder, arguments.glob or ["*.py"])
    cutter = HoleCutter(files, num_snippets=arguments.snippets)
    found: dict[str, int] = {}

    def records() -> Iterator[dict[str, Any]]:
        for kind in dict.fromkeys(arguments.kinds):
            found[kind] = 0
            for task in cutter.cut(HoleKind(kind), arguments.count, arguments.seed):
                found[kind] += 1
                yield to_record(task)

    # All of them before the first is written: a file of that name is kept where nothing can be cut.
    cut = list(records())
    if not cut:
        raise FormatError(f"{arguments.folder}: no hole of these kinds was found; choose other files or kinds")
    _write(arguments.out, cut)
    for kind, count in found.items():
        sys.stdout.write(f"{kind:<12}{count:>7}{'' if count == arguments.count else '  (no more found)'}\n")
    sys.stdout.write(f"{sum(found.values())} holes from {len(files)} files in {arguments.out}\n")
    return 0


def _write(path: Path, records: Sequence[dict[str, Any]]) -> None:
    try:
        with _open(path) as file:
            for record in records:
                file.write(json.dumps(record).encode() + b"\n")
    except OSError as error:
        raise EngineError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error


def _open(path: Path) -> IO[bytes]:
    if path.suffix != ".gz":
        return path.open("wb")
    # Without a time stamp, so that the same holes give the same bytes.
    return cast(IO[bytes], gzip.GzipFile(path, "wb", mtime=0))
