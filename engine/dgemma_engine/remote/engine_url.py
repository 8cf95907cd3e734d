"""Where an engine on another machine is, and whether text may be sent there. Pure.

Plain HTTP is read by everybody on the way, so it is refused unless the engine is on this machine or the user has named
the host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_SCHEMES = ("http", "https")
_WRITE_ONE = "write one such as https://gpu.example:8012"
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUrl:
    """The base of all paths of an engine.

    Attributes:
        scheme: `http` or `https`.
        host: in lower case, without brackets.
        port: None is the scheme's own.
        path: that stands before every path; empty, or with a slash at its beginning and none at its end.
    """

    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a URL.

        Raises:
            ValueError: it cannot be used; the message says why, as the end of a sentence.
        """
        text = text.strip()
        if unseen := next((char for char in text if not char.isprintable()), ""):
            raise ValueError(f"holds a character that cannot be seen (U+{ord(unseen):04X}); {_WRITE_ONE}")
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError(f"is no URL; {_WRITE_ONE}") from None
        if parts.scheme not in _SCHEMES or not host or " " in text:
            raise ValueError(f"is no URL of HTTP; {_WRITE_ONE}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user name or password; put the key into the file of engine.keyFile")
        if parts.query or parts.fragment:
            raise ValueError(f"must end before ? and #; {_WRITE_ONE}")
        if not host.isascii():
            raise ValueError("must name its host in ASCII; other letters have a form that begins with xn--")
        if port == 0 or not (_NAME.fullmatch(host) or _is_address(host)):
            raise ValueError(f"names no host that can be asked; {_WRITE_ONE}")
        return cls(scheme=parts.scheme, host=host, port=port, path=parts.path.rstrip("/"))

    @property
    def base(self) -> str:
        """The URL, without a slash at its end."""
        return f"{self.scheme}://{self.place}{self.path}"

    @property
    def place(self) -> str:
        """Host and port, for the user and for the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the engine is on this machine, or at the end of a tunnel that begins on it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def refusal(self, plain_hosts: Collection[str]) -> str:
        """Returns why nothing may be sent there, as the end of a sentence; empty where it may.

        Args:
            plain_hosts: hosts to which the user allows plain HTTP.
        """
        if self.scheme == "https" or self.is_loopback or self.host in {name.strip().lower() for name in plain_hosts}:
            return ""
        return (
            "would send your text unencrypted; use https, a tunnel (ssh -L) to 127.0.0.1, or add "
            f"{self.host}, without a port, to engine.plainHttpHosts (on the command line: --plain-http-host)"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
