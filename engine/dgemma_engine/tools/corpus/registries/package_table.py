"""Which packages a corpus is made of: names by language, each at one registry, from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dgemma_engine.errors import TrainingError, WrongUsage
from dgemma_engine.tools.corpus.registries.languages import ENDINGS

TABLE = Path(__file__).with_name("packages.toml")


class Registry(StrEnum):
    """Where packages come from: Debian's as source, or as the binary package that developers install."""

    PYPI = "pypi"
    NPM = "npm"
    DEBIAN = "debian"
    DEBIAN_BINARY = "debian-binary"


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePackages:
    """What is read for one language.

    Attributes:
        lang: its language.
        registry: of all of them.
        packages: names as the registry's client takes them.
        weight: factor on the size that a language may have.
    """

    lang: str
    registry: Registry
    packages: tuple[str, ...]
    weight: float = 1.0


def read_table(path: Path, languages: Collection[str] = ()) -> list[LanguagePackages]:
    """Reads a table.

    Args:
        path: a TOML file with a table for each language.
        languages: those to keep; none keeps all.

    Raises:
        WrongUsage: the file does not exist.
        TrainingError: the file cannot be read, a table is not one of packages, or a language is not in it.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WrongUsage(f"{path}: no such file; name a table of packages") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); name a table of packages") from error
    known = {lang: _packages(path, lang, table) for lang, table in tables.items()}
    if unknown := sorted(set(languages) - known.keys()):
        raise TrainingError(f"{unknown[0]}: is no language of {path.name}; known are {', '.join(known)}")
    return [known[lang] for lang in known if not languages or lang in languages]


def _packages(path: Path, lang: str, table: Any) -> LanguagePackages:
    try:
        packages = tuple(map(str, table["packages"]))
        # They become arguments of a client: none may look like an option or a path.
        if lang not in ENDINGS or any(not name or name[0] in "-./" or ".." in name for name in packages):
            raise ValueError(f"{lang} with {', '.join(packages)}")
        return LanguagePackages(
            lang=lang, registry=Registry(table["registry"]), packages=packages, weight=float(table.get("weight", 1))
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{path}: the table {lang} is not one of packages ({error}); it needs a registry and names"
        ) from error
