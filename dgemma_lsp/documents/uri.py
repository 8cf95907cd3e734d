"""A URI as an editor spells it -> scheme, host and decoded path. The one place that parses URIs; refuses none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from dgemma_engine.path_style import HERE, PathStyle

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_EXTRAS = re.compile(r"[?#]")
# Editors add neither query nor fragment to these: an unencoded `?` or `#` is part of a file's name.
_WHOLE = {"", "file", "untitled"}
_THIS_MACHINE = {"", "localhost"}
_MOST_NAMES = 3
# Documents whose paths are kept: each is asked about at every key.
MOST_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Uri:
    """One URI.

    Attributes:
        scheme: in lower case; empty where there is none.
        host: undecoded; empty where there is none.
        path: decoded; bytes that are not UTF-8 are surrogate escapes, as in names of files.
        readings: every path that the URI may mean: with and without what follows `?` or `#`, and below the host.
    """

    scheme: str
    host: str
    path: str
    readings: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Splits a URI; a text without a scheme is a path."""
        found = _SCHEME.match(text)
        scheme, rest = (found[1].lower(), text[found.end() :]) if found else ("", text)
        host = ""
        if found and rest.startswith("//"):
            host, slash, rest = rest[2:].partition("/")
            rest = slash + rest
        decoded = partial(unquote, errors="surrogateescape")
        whole, cut = decoded(rest), decoded(_EXTRAS.split(rest, maxsplit=1)[0])
        readings = [whole, cut, f"/{decoded(host)}{whole}", f"/{decoded(host)}{cut}"] if host else [whole, cut]
        return cls(
            scheme=scheme,
            host=host,
            path=whole if scheme in _WHOLE else cut,
            readings=tuple(dict.fromkeys(readings)),
        )

    @classmethod
    def of_path(cls, path: str, style: PathStyle = HERE) -> Self:
        """Returns the URI of a file of this system."""
        path = style.comparable(path)
        return cls(scheme="file", host="", path=path, readings=(path,))

    @property
    def spelled(self) -> str:
        """Scheme and path as text that every parser of URIs takes; without the host."""
        path = f"/{self.path.lstrip('/')}" if self.path.startswith("/") else self.path
        # A surrogate that stands for no byte of a file's name becomes `?`.
        as_bytes = b"".join(_bytes_of(character) for character in path)
        return f"{self.scheme or 'file'}:{quote(as_bytes)}"


@lru_cache(MOST_KEPT)
def path_of(uri: str, style: PathStyle = HERE) -> Path | None:
    """Returns the path of a document that is a file of this machine, or None.

    Args:
        uri: the document's.
        style: of the system's paths; Windows opens files of other machines under their host.
    """
    parsed = Uri.parse(uri)
    if parsed.scheme != "file" or not parsed.path.startswith("/") or "\0" in parsed.path:
        return None
    if parsed.host.lower() in _THIS_MACHINE:
        native = style.native(parsed.path)
    else:
        native = style.native(f"//{parsed.host}{parsed.path}") if style is PathStyle.WINDOWS else ""
    return Path(native) if native else None


@lru_cache(MOST_KEPT)
def folder_of(uri: str, roots: tuple[str, ...], style: PathStyle = HERE) -> str:
    """Returns the folder that a document is in, else the workspace's first; empty on Windows, where no engine runs.

    Args:
        uri: the document's.
        roots: uris of the workspace's folders.
        style: of the system's paths.
    """
    if style is not PathStyle.POSIX:
        return ""
    path = path_of(uri, style)
    if path is not None:
        return str(path.parent)
    return str(next(filter(None, (path_of(root, style) for root in roots)), ""))


def name_files(uris: Sequence[str]) -> str:
    """Returns the file names of the first 3 URIs and how many more there are, for a person."""
    names = ", ".join(unquote(uri.rpartition("/")[2]) for uri in uris[:_MOST_NAMES])
    return names + (f" and {len(uris) - _MOST_NAMES} more" if len(uris) > _MOST_NAMES else "")


def _bytes_of(character: str) -> bytes:
    return character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "replace")
