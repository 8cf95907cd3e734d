"""Python files on this machine that may be trained on: the standard library and permissively licensed distributions.

Turns folders into `Package`s by reading installed metadata; knows nothing of what is in the files.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dgemma_engine.tools.corpus.licences import metadata_licence

STANDARD_LIBRARY = "python-standard-library"

# This project's own files: the demonstration completes them, so a model must not memorise them.
_OWN = frozenset({"dgemma-lsp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One distribution whose sources may be used.

    Attributes:
        name: lower case, `-` for `_`.
        version: as installed.
        licence: short name, as `licences` recognised it.
        paths: its Python files, sorted.
    """

    name: str
    version: str
    licence: str
    paths: tuple[Path, ...]


def standard_library(folder: Path) -> Package:
    """Returns the standard library in `folder` as one package, without installed packages and its own tests."""
    skipped = {"site-packages", "dist-packages", "test", "idle_test", "lib2to3", "ensurepip", "__pycache__"}
    paths = (path for path in folder.rglob("*.py") if skipped.isdisjoint(path.relative_to(folder).parts))
    return Package(
        name=STANDARD_LIBRARY, version=platform.python_version(), licence="PSF-2.0", paths=tuple(sorted(paths))
    )


def installed_packages(folders: Sequence[Path]) -> Iterator[Package]:
    """Yields permissively licensed distributions of some site-packages folders, each name once, sorted by name.

    Args:
        folders: `site-packages` folders; one that holds no distribution yields nothing.
    """
    found: dict[str, Package] = {}
    for distribution in metadata.distributions(path=[str(folder) for folder in folders]):
        package = _package(distribution)
        if package is not None and package.paths:
            found.setdefault(package.name, package)
    for name in sorted(found):
        yield found[name]


def _package(distribution: metadata.Distribution) -> Package | None:
    fields = distribution.metadata
    name = next(iter(fields.get_all("Name") or []), "").lower().replace("_", "-")
    licence = metadata_licence(fields)
    if not name or name in _OWN or licence is None:
        return None
    files = distribution.files or []
    paths = sorted(Path(str(file.locate())) for file in files if file.suffix == ".py")
    return Package(name=name, version=distribution.version, licence=licence, paths=tuple(paths))
