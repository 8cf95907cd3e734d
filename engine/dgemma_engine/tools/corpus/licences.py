"""Whether a distribution's metadata says that its licence is permissive, and which one it is.

Reads `License-Expression`, licence classifiers and `License`, in this order of trust. In doubt the answer is no: what
cannot be recognised is left out of the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

PERMISSIVE = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC",
        "MIT", "MIT-0", "MIT-CMU", "NCSA", "PSF-2.0", "Python-2.0", "Unlicense", "X11", "Zlib",
    }
)  # fmt: skip
"""SPDX identifiers that ask for no more than a notice."""

_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}

_FREE_TEXT = (
    (re.compile(r"(the )?mit( license)?"), "MIT"),
    (re.compile(r"(the )?(new |modified |simplified )?bsd( license)?|bsd[- ][23][- ]clause( license)?"), "BSD"),
    (re.compile(r"apache([- ]software)?([- ]license)?,?( version)?[- ]?(v?2(\.0)?)?( license)?"), "Apache-2.0"),
    (re.compile(r"isc( license)?"), "ISC"),
    (re.compile(r"psf(-2\.0)?( license)?|python software foundation license"), "PSF-2.0"),
)


class MetadataFields(Protocol):
    """Fields of a distribution's `METADATA`: of an installed one, or a parsed message."""

    def get_all(self, name: str, /) -> list[str] | None:
        """Returns all values of a field."""
        ...


def metadata_licence(fields: MetadataFields) -> str | None:
    """Returns a short name of a distribution's licence, or None when it is not clearly permissive."""
    expression, text = (next(iter(fields.get_all(name) or []), None) for name in ("License-Expression", "License"))
    return permissive_licence(expression=expression, classifiers=fields.get_all("Classifier") or [], text=text)


def permissive_licence(*, expression: str | None, classifiers: Sequence[str], text: str | None) -> str | None:
    """Returns a short name of the licence, or None when it is not clearly permissive.

    Args:
        expression: the `License-Expression` field, an SPDX expression.
        classifiers: all `Classifier` fields; those about licences are read.
        text: the `License` field; only a short one is read, a whole licence text is not.
    """
    if expression:
        return expression if _is_permissive_expression(expression) else None
    names = [item.split("::")[-1].strip() for item in classifiers if item.startswith("License ::")]
    names = [name for name in names if name != "OSI Approved"]
    if names:
        known = [_CLASSIFIERS.get(name) for name in names]
        return None if None in known else " AND ".join(sorted({str(name) for name in known}))
    return _from_free_text(text or "")


def _is_permissive_expression(expression: str) -> bool:
    """Evaluates an SPDX expression without brackets; one with brackets must be permissive in all its parts."""
    flat = re.sub(r"\s+WITH\s+\S+", "", expression)
    if "(" in flat:
        return all(name in PERMISSIVE for name in re.findall(r"[^\s()]+", flat) if name not in ("AND", "OR"))
    return any(
        all(name.strip() in PERMISSIVE for name in re.split(r"\s+AND\s+", choice))
        for choice in re.split(r"\s+OR\s+", flat)
    )


def _from_free_text(text: str) -> str | None:
    text = " ".join(text.split()).strip(". ")
    if _is_permissive_expression(text):
        return text
    return next((name for pattern, name in _FREE_TEXT if pattern.fullmatch(text.lower())), None)
