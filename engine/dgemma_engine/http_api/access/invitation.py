"""`serve --share`: an address and a new key -> the lines that another machine's editors need. Writes nothing itself."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.errors import WrongUsage
from dgemma_engine.private_files import open_private

KEY_FILE = "~/.dgemma-key"
"""Where the lines to paste expect the key on the other machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What another machine needs.

    Attributes:
        scheme: `http` or `https`.
        host: by which that machine finds this one; of a loopback address, the end of a tunnel there.
        port: of the server.
        key: the new key.
        is_tunnelled: whether the server listens on this machine only, so that a tunnel has to lead to it.
        tunnel_host: name of this machine, for the tunnel.
        key_place: the file that the key was added to; empty where it is valid only as long as the server runs.
    """

    scheme: str
    host: str
    port: int
    key: str
    is_tunnelled: bool
    tunnel_host: str
    key_place: str

    @property
    def url(self) -> str:
        """The value of `engine.url`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def lines(self) -> str:
        """Returns what to print, for a person."""
        plain = self.scheme == "http" and not self.is_tunnelled
        engine: dict[str, object] = {"url": self.url, "keyFile": KEY_FILE}
        if plain:
            engine["plainHttpHosts"] = [self.host]
        vscode = ", ".join(f'"dgemma.engine.{name}": {json.dumps(value)}' for name, value in engine.items())
        lua = ", ".join(f"{name} = {_lua(value)}" for name, value in engine.items())
        life = f"added to {self.key_place}" if self.key_place else "valid as long as this runs; to keep it, give a file"
        life += "" if self.key_place else " with --api-key-file"
        parts = [f"address: {self.url}", f"key: {self.key} ({life})", "", "On the other machine:"]
        if self.is_tunnelled:
            parts.append(f"  ssh -N -L {self.port}:127.0.0.1:{self.port} {self.tunnel_host}")
        parts += [f"  (umask 077; echo {self.key} > {KEY_FILE})", "VS Code, user settings:", f"  {vscode}"]
        parts += ["Neovim:", f"  require('dgemma').setup({{ settings = {{ engine = {{ {lua} }} }} }})"]
        if plain:
            parts += [
                "",
                "Text travels unencrypted, readable by everybody on the way; --tls-cert and --tls-key end that.",
            ]
        return "\n".join(parts)


def new_key() -> str:
    """Returns a key of 192 random bits."""
    return secrets.token_hex(24)


def add_key(path: Path, name: str, key: str) -> None:
    """Adds a key to a file of keys, which is made where it is missing; only its owner may read it.

    Raises:
        WrongUsage: the file cannot be written.
    """
    try:
        begun = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "w", encoding="utf-8") as file:
            file.write(("\n" if begun else "") + f"{name} {key}\n")
    except OSError as error:
        raise WrongUsage(f"--api-key-file {path}: cannot be written ({error.strerror})") from None


def _lua(value: object) -> str:
    if isinstance(value, list):
        return "{ " + ", ".join(f"'{one}'" for one in value) + " }"
    return f"'{value}'"
