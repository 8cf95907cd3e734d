"""Settings of an engine on another machine -> URL, key and certificates, or the sentence that says what is wrong."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx2

from dgemma_engine.errors import OutOfReach
from dgemma_engine.key_text import key_lines
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
        try:
            # A name such as `127.0.0.1000` or `xn--` that the HTTP library refuses; its message is not for users.
            _ = httpx2.URL(url.base).host
        except (httpx2.InvalidURL, ValueError):
            raise OutOfReach(f"engine.url names no host that can be asked: {url.host}; correct it") from None
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
        path = _expanded("engine.keyFile", self.key_file)
        try:
            with path.open("rb") as file:
                content, rest = file.read(_MAX_KEY_BYTES), file.read(1)
                lines = key_lines(content, num_missing=len(rest))
        except (OSError, ValueError) as error:
            cause, _, remedy = _reason(error).partition("; ")
            remedy = remedy or "put the key into a file that you can read"
            raise OutOfReach(f"engine.keyFile {_shown(path)}: cannot be read ({cause}); {remedy}") from None
        # As the file of `dgemma-engine serve --api-key-file`: KEY, or NAME KEY.
        words = next((words for line in lines if (words := line.split()) and not words[0].startswith("#")), [])
        if not words:
            raise OutOfReach(f"engine.keyFile {_shown(path)}: holds no key; its first line must be the key")
        if rest and b"\n" not in content:
            raise OutOfReach(
                f"engine.keyFile {_shown(path)}: its first line is longer than any key; put the key alone there"
            )
        if len(words) > 2 or not all("!" <= char <= "~" for char in words[-1]):
            raise OutOfReach(
                f"engine.keyFile {_shown(path)}: its first line is no key; it must be KEY or NAME KEY, in ASCII"
            )
        return words[-1]

    def certificates(self) -> ssl.SSLContext:
        """Returns what certificates are checked with: the system's authorities, and those of the file.

        Raises:
            OutOfReach: the file cannot be used, or what the environment names besides.
        """
        try:
            context = httpx2.create_ssl_context()
        except OSError as error:
            raise OutOfReach(
                f"the certificates of this machine cannot be read ({_reason(error)}); check the variables "
                "SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE"
            ) from None
        if self.ca_file:
            path = _expanded("engine.caFile", self.ca_file)
            try:
                context.load_verify_locations(cafile=path)
            except (OSError, ValueError) as error:
                raise OutOfReach(
                    f"engine.caFile {_shown(path)}: cannot be used ({_reason(error)}); name a PEM file of certificates"
                ) from None
        return context


def _expanded(setting: str, name: str) -> Path:
    """Returns the path of a file; a relative one would be a file of whichever folder an editor has opened."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        path = Path(name)
    if not path.is_absolute():
        raise OutOfReach(f"{setting} {_shown(path)}: must be an absolute path, or begin with ~; write it out")
    return path


def _shown(path: Path) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(path))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it holds no certificate"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    # Of a path; ours are about what is in the file.
    return "no file can have this name" if "null" in str(error) or isinstance(error, UnicodeError) else str(error)
