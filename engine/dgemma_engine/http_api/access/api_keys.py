"""API keys and their names: read from a file or an environment variable, compared in constant time.

Kept as SHA-256 sums, so that no key stands in a traceback or a core dump's strings.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dgemma_engine.errors import WrongUsage
from dgemma_engine.key_text import key_lines

ENVIRONMENT_NAME = "DGEMMA_API_KEY"
# As long as what `openssl rand -hex 8` prints.
_LEAST_CHARS = 16
_MOST_CHARS = 512


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Keys by name; false where there are none, and then no key is needed.

    Attributes:
        sums: SHA-256 of each key and its name.
    """

    sums: tuple[tuple[bytes, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sums)

    @classmethod
    def read(cls, path: Path | None, environ: Mapping[str, str]) -> Self:
        """Returns the keys of a file and of the variable `DGEMMA_API_KEY`, which is named `environment`.

        Args:
            path: lines of `KEY` or `NAME KEY`; empty ones and those that begin with `#` are skipped. None reads none.
            environ: the environment.

        Raises:
            WrongUsage: the file cannot be read or holds no key, or a key cannot be used; the message quotes no key.
        """
        found: list[tuple[str, str]] = []
        if path is not None:
            try:
                lines = key_lines(path.read_bytes())
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise WrongUsage(f"--api-key-file {path}: cannot be read ({reason})") from None
            found = list(_named(lines, path))
            if not found:
                raise WrongUsage(f"--api-key-file {path}: holds no key")
        if key := environ.get(ENVIRONMENT_NAME, "").strip():
            found.append(("environment", _checked(key, ENVIRONMENT_NAME)))
        return cls(tuple((_sum(key), name) for name, key in found))

    def with_key(self, name: str, key: str) -> Self:
        """Returns these keys and one more."""
        return type(self)((*self.sums, (_sum(key), name)))

    def name_of(self, headers: Mapping[str, str]) -> str | None:
        """Returns the name of a request's key; None where it has no valid one.

        Args:
            headers: of the request, by name in lower case.
        """
        found: str | None = None
        for given in _given(headers):
            given_sum = _sum(given)
            for known, name in self.sums:
                # Compares with every key even after a match.
                if hmac.compare_digest(given_sum, known) and found is None:
                    found = name
        return found


NO_KEYS = ApiKeys()
"""No key is needed."""


def _named(lines: Iterable[str], path: Path) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = f"--api-key-file {path}: line {number}"
        if len(words) > 2:
            raise WrongUsage(f"{place}: must be KEY or NAME KEY")
        yield (words[0] if len(words) == 2 else f"line {number}"), _checked(words[-1], place)


def _checked(key: str, place: str) -> str:
    if not _LEAST_CHARS <= len(key) <= _MOST_CHARS or not all("!" <= char <= "~" for char in key):
        raise WrongUsage(
            f"{place}: a key must be {_LEAST_CHARS} to {_MOST_CHARS} printable ASCII characters without blanks; "
            "make one with: openssl rand -hex 24"
        )
    return key


def _sum(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _given(headers: Mapping[str, str]) -> list[str]:
    """Returns the possible keys of a request: clients use four headers, and some send a dummy in one of them."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    given = [headers.get("x-api-key", ""), headers.get("api-key", "")]
    if scheme.lower() == "bearer":
        given.append(rest.strip())
    elif scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest.strip(), validate=True).decode("utf-8", "replace").partition(":")
        except (binascii.Error, ValueError):
            return [key for key in given if key]
        given += [user, password]
    return [key for key in given if key]
