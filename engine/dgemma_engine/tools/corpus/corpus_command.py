"""`dgemma-engine corpus`: builds a corpus from Python files on this machine and prints what it is made of."""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.argument_numbers import positive

if TYPE_CHECKING:
    from dgemma_engine.tools.corpus.corpus import CorpusReport, ManifestEntry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument(
        "--site", type=Path, action="append", default=[], metavar="DIR", help="another site-packages folder; repeatable"
    )
    parser.add_argument("--vocab-size", type=positive, default=8_192, metavar="N", help="tokens (default: 8192)")
    parser.add_argument(
        "--package-bytes",
        type=positive,
        default=8_000_000,
        metavar="N",
        help="most bytes from one package (default: 8e6)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        TrainingError: no corpus can be made.
    """
    from dgemma_engine.tools.corpus.corpus import build_corpus
    from dgemma_engine.tools.corpus.sources import installed_packages, standard_library

    folders = [Path(sysconfig.get_path("purelib")), *arguments.site]
    packages = chain([standard_library(Path(sysconfig.get_path("stdlib")))], installed_packages(folders))
    report = build_corpus(
        packages, arguments.out, vocab_size=arguments.vocab_size, max_package_bytes=arguments.package_bytes
    )
    sys.stdout.writelines(f"{line}\n" for line in table(report))
    return 0


def table(report: CorpusReport) -> Iterator[str]:
    """Yields the lines of the table: by licence, by split, and what was left out."""
    yield f"{'':40} {'packages':>8} {'files':>7} {'bytes':>12} {'tokens':>12}"
    yield from _group(report.entries, lambda entry: entry.licence)
    yield ""
    yield from _group(report.entries, lambda entry: f"split: {entry.split}")
    yield _row("all", report.entries)
    held_out = ", ".join(entry.package for entry in report.entries if entry.split == "held_out")
    yield f"\nheld out whole: {held_out}"
    yield "files left out: " + ", ".join(
        f"{count} {reason.value}" for reason, count in sorted(report.rejected.items(), key=lambda item: -item[1])
    )


def _group(entries: Iterable[ManifestEntry], key: Callable[[ManifestEntry], str]) -> Iterator[str]:
    groups: dict[str, list[ManifestEntry]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    for name, members in sorted(groups.items(), key=lambda item: -sum(entry.bytes for entry in item[1])):
        yield _row(name, members)


def _row(name: str, entries: Iterable[ManifestEntry]) -> str:
    members = list(entries)
    sums = (sum(e.files for e in members), sum(e.bytes for e in members), sum(e.tokens for e in members))
    return f"{name[:40]:40} {len(members):8,} {sums[0]:7,} {sums[1]:12,} {sums[2]:12,}"
