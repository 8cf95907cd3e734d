"""Address, keys, names and limits of the HTTP server: values, checked when they are made."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.access.api_keys import NO_KEYS, ApiKeys

DEFAULT_PORT = 8_012
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class BindAddress:
    """Where the server listens.

    Attributes:
        host: an IP address, or `localhost`.
        port: 0 lets the system choose a free one.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise WrongUsage(f"--http: port {self.port} must be between 0 and 65535")
        if self.host != "localhost":
            try:
                ipaddress.ip_address(self.host)
            except ValueError:
                raise WrongUsage("--http: must be an IP address and a port, such as 127.0.0.1:8012") from None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `HOST:PORT`, `HOST` or `[::1]:PORT`.

        Raises:
            WrongUsage: it is none of them.
        """
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
            host, port = text, str(DEFAULT_PORT)
        if not (port.isascii() and port.isdigit() and len(port) <= 5):
            raise WrongUsage("--http: must be an IP address and a port, such as 127.0.0.1:8012")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def url_host(self) -> str:
        """The host as a URL has it."""
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM."""

    cert: Path
    key: Path

    def check(self) -> None:
        """Reads both.

        Raises:
            WrongUsage: they cannot be read, or do not belong together.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise WrongUsage(f"--tls-cert and --tls-key cannot be used ({reason})") from None


def _no_password() -> str:
    """Refuses: a server that starts at login cannot ask for a pass phrase."""
    raise ValueError("the key is encrypted")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Settings of the application and its server.

    Attributes:
        bind: where the server listens.
        keys: valid keys; only on a loopback address none are needed.
        user_header: name, in lower case, of a header in which a proxy with a key names the user; empty for none.
        tls: certificate and key; None is plain HTTP.
        hosts: names besides IP addresses and `localhost` that the `Host` of a request may have.
        origins: web pages besides our own address that may send requests, such as `https://editor.example`.
        max_body_bytes: largest body; small refuses long files, large costs memory per request.
        max_header_bytes: largest head.
        max_items: most entries of any list in a body.
        max_requests: most completions under way, at the engine or waiting; one more is answered with 429.
        num_at_once: documents that the engine works on at the same time; see `TurnQueue`.
        max_wait_s: seconds that a completion may wait for its turn, never past a deadline that its client named; then
            it is answered with nothing.
        max_connections: most open connections; one more is closed with 503.
        receive_s: seconds that a request may take to arrive, head and body.
        send_s: seconds that a client may leave a piece of the answer unread.
        deadline_ms: milliseconds for one answer from the moment the engine receives the request, where the client
            names none.
        max_middle_tokens: most tokens of one answer, whatever the client asks for.
        insistent: whether every answer is the best text however unlikely; else an unlikely one is answered empty.
    """

    bind: BindAddress = BindAddress()
    keys: ApiKeys = NO_KEYS
    user_header: str = ""
    tls: TlsFiles | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 4 * _MIB
    max_header_bytes: int = 16_384
    max_items: int = 256
    max_requests: int = 64
    num_at_once: int = 2
    max_wait_s: float = 30.0
    max_connections: int = 256
    receive_s: float = 10.0
    send_s: float = 30.0
    deadline_ms: float = 3_000.0
    max_middle_tokens: int = 256
    insistent: bool = False

    def __post_init__(self) -> None:
        if not self.bind.is_loopback and not self.keys:
            raise WrongUsage(
                f"{self.bind.host} can be reached from other machines: give keys with --api-key-file or "
                "DGEMMA_API_KEY, or listen on 127.0.0.1"
            )
        names = ("max_body_bytes", "max_header_bytes", "max_items", "max_requests", "num_at_once", "max_connections")
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"HttpSettings.{name} must be at least 1")
        for name in ("max_wait_s", "receive_s", "send_s", "deadline_ms"):
            if getattr(self, name) <= 0:
                raise ValueError(f"HttpSettings.{name} must be more than 0")
        if not 1 <= self.max_middle_tokens <= 4_096:
            raise ValueError(f"{self.max_middle_tokens=} must be between 1 and 4096")
