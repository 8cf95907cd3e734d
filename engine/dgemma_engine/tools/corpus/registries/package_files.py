"""A package's archives to its source files that a corpus may hold, or why it may hold none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.corpus.duplicates import Duplicates
from dgemma_engine.tools.corpus.filters import MAX_BYTES, Rejection, rejection
from dgemma_engine.tools.corpus.registries.archives import members
from dgemma_engine.tools.corpus.registries.languages import is_source
from dgemma_engine.tools.corpus.registries.package_licences import (
    LicenceOf,
    debian_licence,
    installed_licence,
    npm_licence,
    wheel_licence,
)
from dgemma_engine.tools.corpus.registries.package_table import Registry
from dgemma_engine.tools.corpus.source_lines import SourceLine
from dgemma_engine.tools.corpus.stable_hash import stable_hash

_METADATA: dict[Registry, tuple[Callable[[PurePosixPath], bool], Callable[[str], LicenceOf]]] = {
    Registry.PYPI: (lambda path: path.match("*.dist-info/METADATA") and len(path.parts) == 2, wheel_licence),
    Registry.NPM: (lambda path: str(path) == "package.json", npm_licence),
    Registry.DEBIAN: (lambda path: str(path) == "debian/copyright", debian_licence),
    Registry.DEBIAN_BINARY: (lambda path: path.match("share/doc/*/copyright"), installed_licence),
}
_ARCHIVES = (".whl", ".tgz", ".deb", ".tar.gz", ".tar.xz", ".tar.bz2")


class PackageReader:
    """Reads packages; stores fingerprints of the files that it accepted and rejects copies of them.

    Args:
        max_bytes: most text of one package, in UTF-8.

    Attributes:
        rejected: how many files were left out, and why.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._duplicates = max_bytes, Duplicates()
        self.rejected = Counter[Rejection]()

    def read(self, registry: Registry, package: str, lang: str, paths: Sequence[Path]) -> list[SourceLine]:
        """Returns a package's source files of one language.

        Args:
            registry: where it came from.
            package: its name.
            lang: a key of `languages.ENDINGS`.
            paths: what its client fetched.

        Raises:
            TrainingError: an archive is damaged, or no file stands under a clearly permissive licence.
        """
        archives = [path for path in paths if path.name.endswith(_ARCHIVES) and ".orig-" not in path.name]
        licence_of = self._licences(registry, package, archives)
        sources, is_cleared = list[SourceLine](), False
        for archive in archives:
            for member in members(archive):
                if not is_source(member.path, lang):
                    continue
                licence = licence_of(member.path)
                if licence is None:
                    self.rejected[Rejection.LICENCE] += 1
                    continue
                is_cleared = True
                if member.num_bytes > MAX_BYTES:
                    self.rejected[Rejection.SIZE] += 1
                elif (text := self._text(member.path, member.read())) is not None:
                    name = member.path.name
                    sources.append(SourceLine(lang=lang, name=name, package=package, licence=licence, text=text))
        if not is_cleared:
            raise TrainingError(f"{package}: has no {lang} file under a clearly permissive licence")
        return self._within_share(sources)

    def _licences(self, registry: Registry, package: str, archives: Sequence[Path]) -> LicenceOf:
        is_metadata, licence_of = _METADATA[registry]
        for archive in archives:
            for member in members(archive):
                if is_metadata(member.path):
                    return licence_of(member.read().decode("utf-8", "replace"))
        raise TrainingError(f"{package}: came without metadata that names its licence")

    def _text(self, path: PurePosixPath, content: bytes) -> str | None:
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            self.rejected[Rejection.ENCODING] += 1
            return None
        reason = rejection(path, text) or self._duplicates.rejection(text)
        if reason is not None:
            self.rejected[reason] += 1
            return None
        return text

    def _within_share(self, sources: list[SourceLine]) -> list[SourceLine]:
        """Returns files up to the package's share, in the order of a hash, so that they come from all over it."""
        kept, num_bytes = list[SourceLine](), 0
        for source in sorted(sources, key=lambda source: stable_hash(source.text)):
            num_bytes += source.num_bytes
            if num_bytes > self._max_bytes:
                self.rejected[Rejection.SHARE] += 1
            else:
                kept.append(source)
        return kept
