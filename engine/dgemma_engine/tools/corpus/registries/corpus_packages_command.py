"""`dgemma-engine corpus-packages`: collects source files of seven languages from package registries into one file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.argument_numbers import above_zero

if TYPE_CHECKING:
    from dgemma_engine.tools.corpus.registries.package_corpus import PackageCorpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, gzip of JSON lines")
    parser.add_argument(
        "--languages", default="", metavar="A,B", help="languages to collect (default: all of the table)"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="table of packages in place of the built-in one")
    parser.add_argument(
        "--mib-per-language",
        type=above_zero,
        default=40,
        metavar="N",
        help="most MiB of a language, twice that of Python (default: 40)",
    )
    parser.add_argument(
        "--mib-per-package", type=above_zero, default=4, metavar="N", help="most MiB of a package (default: 4)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        TrainingError: no corpus can be made.
    """
    from dgemma_engine.tools.corpus.registries.downloads import Downloads
    from dgemma_engine.tools.corpus.registries.package_corpus import PackageCorpus
    from dgemma_engine.tools.corpus.registries.package_table import TABLE, read_table
    from dgemma_engine.tools.corpus.source_lines import write_corpus

    languages = [name for name in arguments.languages.split(",") if name]
    table = read_table(arguments.table or TABLE, languages)
    with tempfile.TemporaryDirectory() as folder:
        downloads = Downloads(Path(folder))
        for registry in sorted({language.registry for language in table}):
            downloads.require(registry)
        corpus = PackageCorpus(
            table,
            downloads,
            language_mib=arguments.mib_per_language,
            package_mib=arguments.mib_per_package,
            report=_say,
        )
        write_corpus(arguments.out, corpus.sources())
    for line in summary(corpus):
        _say(line)
    return 0


def summary(corpus: PackageCorpus) -> Iterator[str]:
    """Yields the lines of the table: languages, licences, and what was left out."""
    yield f"{'':12} {'packages':>8} {'files':>7} {'MiB':>6}  held out whole"
    for each in corpus.languages:
        held_out = ", ".join(sorted(each.held_out)) or "none"
        mib = each.num_bytes / 2**20
        yield f"{each.lang:12} {len(each.packages):8,} {each.files:7,} {mib:6.1f}  {held_out}"
    licences = sum((each.licences for each in corpus.languages), start=type(corpus.languages[0].licences)())
    yield "files by licence: " + ", ".join(f"{count} {name}" for name, count in licences.most_common())
    yield "files left out: " + ", ".join(f"{count} {reason.value}" for reason, count in corpus.rejected.most_common())
    yield f"packages left out: {sum(len(each.refused) for each in corpus.languages)}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
