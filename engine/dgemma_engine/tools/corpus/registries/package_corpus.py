"""A table of packages to the lines of a corpus: fetched one by one, read, and removed again."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.corpus.filters import Rejection
from dgemma_engine.tools.corpus.held_out import HELD_OUT_SHARE, is_held_out
from dgemma_engine.tools.corpus.registries.package_files import PackageReader
from dgemma_engine.tools.corpus.registries.package_table import LanguagePackages, Registry
from dgemma_engine.tools.corpus.source_lines import SourceLine
from dgemma_engine.tools.corpus.stable_hash import stable_hash

MIB = 2**20


class Fetcher(Protocol):
    """Fetches packages; `downloads.Downloads` does."""

    def fetch(self, registry: Registry, name: str, folder: Path) -> list[Path]:
        """Fetches a package into an empty folder; returns the files that came."""
        ...


@dataclass(slots=True)
class LanguageReport:
    """What was kept of a language's packages, and what was refused.

    Attributes:
        lang: the language.
        files: kept.
        num_bytes: of them.
        packages: that gave any.
        held_out: those of them that are for evaluation.
        licences: how many files have each.
        refused: why a package gave none, a sentence each.
    """

    lang: str
    files: int = 0
    num_bytes: int = 0
    packages: set[str] = field(default_factory=set[str])
    held_out: set[str] = field(default_factory=set[str])
    licences: Counter[str] = field(default_factory=Counter[str])
    refused: list[str] = field(default_factory=list[str])


class PackageCorpus:
    """Collects a corpus; iterate `sources` once.

    Args:
        table: what to read.
        fetcher: fetches packages.
        language_mib: most text of a language of weight 1, in MiB.
        package_mib: most text of a package, in MiB.
        report: called with a line for a person.

    Attributes:
        languages: what became of each, filled while `sources` is iterated.
        rejected: how many files were left out, and why.
    """

    def __init__(
        self,
        table: Sequence[LanguagePackages],
        fetcher: Fetcher,
        *,
        language_mib: float,
        package_mib: float,
        report: Callable[[str], None],
    ) -> None:
        self._table, self._fetcher, self._report = table, fetcher, report
        self._language_bytes, self._reader = language_mib * MIB, PackageReader(int(package_mib * MIB))
        self.languages: list[LanguageReport] = []

    @property
    def rejected(self) -> Counter[Rejection]:
        """How many files were left out, and why."""
        return self._reader.rejected

    def sources(self) -> Iterator[SourceLine]:
        """Yields the lines of the corpus, one language after the other."""
        for language in self._table:
            report = LanguageReport(lang=language.lang)
            self.languages.append(report)
            # Packages to train on come first: a copy of a held-out file that one of them carries is then left out of
            # the evaluation, not learnt from it.
            ordered = sorted(language.packages, key=is_held_out)
            files = [source for name in ordered for source in self._package(language, name, report)]
            room = language.weight * self._language_bytes
            yield from self._kept([each for each in files if not is_held_out(each.package)], room, report)
            yield from self._kept(
                [each for each in files if is_held_out(each.package)], 2 * HELD_OUT_SHARE * room, report
            )

    def _package(self, language: LanguagePackages, name: str, report: LanguageReport) -> list[SourceLine]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                paths = self._fetcher.fetch(language.registry, name, Path(folder))
                found = self._reader.read(language.registry, name, language.lang, paths)
            except TrainingError as error:
                report.refused.append(str(error))
                self._report(f"left out: {error}")
                return []
        self._report(f"{language.lang}: {name}, {len(found)} files")
        return found

    def _kept(self, files: list[SourceLine], room: float, report: LanguageReport) -> Iterator[SourceLine]:
        """Yields files up to a size, in the order of a hash, so that they come from all packages."""
        num_bytes = 0
        for source in sorted(files, key=lambda source: stable_hash(source.text)):
            num_bytes += source.num_bytes
            if num_bytes > room:
                self.rejected[Rejection.SHARE] += 1
                continue
            report.files += 1
            report.num_bytes += source.num_bytes
            report.packages.add(source.package)
            report.held_out.update({source.package} if is_held_out(source.package) else ())
            report.licences[source.licence] += 1
            yield source
