"""Under which licence each file of a package stands, from the metadata that comes with it; None where it is not clear.

Wheels have `METADATA`, npm packages `package.json`, Debian sources `debian/copyright` in machine-readable form (DEP-5),
which may give each file another licence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from email.parser import Parser
from pathlib import PurePosixPath
from typing import Any

from dgemma_engine.tools.corpus.licences import PERMISSIVE, metadata_licence, permissive_licence

LicenceOf = Callable[[PurePosixPath], str | None]
"""A path in a package to the short name of its permissive licence, or None."""

# Names that Debian's copyright files use for SPDX identifiers; case does not count.
_SPDX = {name.lower(): name for name in PERMISSIVE} | {
    "expat": "MIT", "apache-2": "Apache-2.0", "bsd-2": "BSD-2-Clause", "bsd-3": "BSD-3-Clause", "boost-1.0": "BSL-1.0",
    "bsl-1": "BSL-1.0", "zlib/libpng": "Zlib", "or": "OR", "and": "AND",
}  # fmt: skip


def wheel_licence(metadata: str) -> LicenceOf:
    """Reads the text of a wheel's `METADATA`."""
    licence = metadata_licence(Parser().parsestr(metadata, headersonly=True))
    return lambda _path: licence


def npm_licence(package_json: str) -> LicenceOf:
    """Reads the text of a `package.json`."""
    try:
        values: Any = json.loads(package_json)
        named = values.get("license") or values.get("licenses")
    except (json.JSONDecodeError, AttributeError):
        named = None
    items: list[Any] = named if isinstance(named, list) else [named]
    names = [str(item.get("type")) if isinstance(item, dict) else item for item in items]
    # A list is the old form of a choice.
    expression = " OR ".join(name for name in names if isinstance(name, str))
    licence = permissive_licence(expression=expression, classifiers=(), text=None) if expression else None
    return lambda _path: licence


def debian_licence(copyright_text: str) -> LicenceOf:
    """Reads the text of a `debian/copyright`; one in free form clears no file."""
    rules = [(_matcher(files), licence) for files, licence in _rules(copyright_text)]

    def licence_of(path: PurePosixPath) -> str | None:
        # The last paragraph that matches is the one that counts.
        return next((licence for matcher, licence in reversed(rules) if matcher.fullmatch(str(path))), None)

    return licence_of


def installed_licence(copyright_text: str) -> LicenceOf:
    """Reads the text of a binary package's copyright file, whose paths are those of a source that is not there.

    Every paragraph but those of the packaging must be permissive, whichever files it is about.
    """
    licences = [licence for files, licence in _rules(copyright_text) if files.split() != ["debian/*"]]
    cleared = sorted({f"({each})" if " OR " in each else each for each in licences if each is not None})
    licence = " AND ".join(cleared) if cleared and None not in licences else None
    return lambda _path: licence


def _rules(copyright_text: str) -> list[tuple[str, str | None]]:
    """Returns the patterns of each paragraph about files, and its licence if that is permissive."""
    paragraphs = list(_paragraphs(copyright_text))
    if not paragraphs or "copyright-format" not in paragraphs[0].get("format", ""):
        return []
    return [
        (paragraph["files"], _permissive(paragraph.get("license", "").partition("\n")[0]))
        for paragraph in paragraphs
        if "files" in paragraph
    ]


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Yields the fields of each paragraph, names in lower case, lines of a value joined by line breaks."""
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        fields = dict[str, str]()
        name = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}".strip() if name else ""
            elif ":" in line and not line.startswith("#"):
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def _matcher(patterns: str) -> re.Pattern[str]:
    """Returns a pattern for paths: `*` and `?` stand for slashes, too."""
    return re.compile("|".join(re.escape(p).replace(r"\*", ".*").replace(r"\?", ".") for p in patterns.split()), re.S)


def _permissive(short_name: str) -> str | None:
    words = short_name.replace(",", " ").split()
    # `BSD-3-clause~Google` is that licence with another holder's name in its text.
    expression = " ".join(_SPDX.get(word.lower().partition("~")[0], word) for word in words)
    # A comma changes the precedence: every licence must then be permissive.
    expression = f"({expression})" if "," in short_name else expression
    return permissive_licence(expression=expression, classifiers=(), text=None) if expression else None
