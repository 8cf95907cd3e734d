"""Settings of an engine on another machine -> URL, key and certificates, or the sentence that says what is wrong."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx2

from dgemma_engine.errors import OutOfReach
from dgemma_engine.remote.engine_url import EngineUrl

_MAX_KEY_BYTES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLocation:
    """Where the engine is, as the user wrote it; files are read when a connection is made.

    Attributes:
        url: base of all paths.
        key_file: file whose first line that is no comment is, or ends with, the key; empty sends none.
        ca_file: PEM file of authorities that count besides those of the system; empty adds none.
        plain_hosts: hosts to which plain HTTP is allowed.
    """

    url: str
    key_file: str = ""
    ca_file: str = ""
    plain_hosts: tuple[str, ...] = ()

    def parse_url(self) -> EngineUrl:
        """Returns the URL.

        Raises:
            OutOfReach: it cannot be read, or nothing may be sent there.
        """
        try:
            url = EngineUrl.parse(self.url)
        except ValueError as error:
            raise OutOfReach(f"engine.url {error}") from None
        if why := url.refusal(self.plain_hosts):
            raise OutOfReach(f"engine.url: plain HTTP to {url.host} {why}")
        return url

    def read_key(self) -> str:
        """Returns the key; empty where there is none.

        Raises:
            OutOfReach: the file cannot be read, or holds no key.
        """
        if not self.key_file:
            return ""
        path = _expanded(self.key_file)
        try:
            with path.open("rb") as file:
                lines = file.read(_MAX_KEY_BYTES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise OutOfReach(f"engine.keyFile {path}: cannot be read ({reason})") from None
        # As the file of `dgemma-engine serve --api-key-file`: KEY, or NAME KEY.
        words = next((words for line in lines if (words := line.split()) and not words[0].startswith("#")), [])
        if not words or len(words) > 2 or not all("!" <= char <= "~" for char in words[-1]):
            raise OutOfReach(f"engine.keyFile {path}: holds no key; its first line must be the key")
        return words[-1]

    def certificates(self) -> ssl.SSLContext:
        """Returns what certificates are checked with: the system's authorities, and those of the file.

        Raises:
            OutOfReach: the file cannot be used.
        """
        context = httpx2.create_ssl_context()
        if self.ca_file:
            path = _expanded(self.ca_file)
            try:
                context.load_verify_locations(cafile=path)
            except (OSError, ValueError) as error:
                reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else _reason(error)
                raise OutOfReach(f"engine.caFile {path}: cannot be used ({reason})") from None
        return context


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
