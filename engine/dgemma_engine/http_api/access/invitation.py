"""`serve --share`: an address and a key -> the lines that another machine's editors need; the key's place in a file."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.errors import WrongUsage
from dgemma_engine.key_text import encoding_of, key_lines
from dgemma_engine.private_files import open_private

KEY_FILE = "~/.dgemma-key"
"""Where the lines to paste expect the key on the other machine."""

_NAME = "share-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What another machine needs.

    Attributes:
        scheme: `http` or `https`.
        host: at which that machine reaches this one; for a loopback address, the end of a tunnel there.
        port: of the server.
        key: that the other machine has to send.
        is_tunnelled: whether the server listens on this machine only, so that a tunnel has to lead to it.
        tunnel_host: name of this machine, for the tunnel.
        key_place: the file that holds the key; empty where it is valid only as long as the server runs.
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
        """The value of `engine.url`; the other end of a tunnel is at 127.0.0.1 whatever of 127.0.0.0/8 this one is."""
        return (
            f"{self.scheme}://{self._place('127.0.0.1' if self.is_tunnelled and ':' not in self.host else self.host)}"
        )

    def _place(self, host: str) -> str:
        """Host and port, as in a URL and in the end of a tunnel."""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def lines(self) -> str:
        """Returns what to print, for a person."""
        plain = self.scheme == "http" and not self.is_tunnelled
        engine: dict[str, object] = {"url": self.url, "keyFile": KEY_FILE}
        if plain:
            engine["plainHttpHosts"] = [self.host]
        vscode = ", ".join(f'"dgemma.engine.{name}": {json.dumps(value)}' for name, value in engine.items())
        lua = ", ".join(f"{name} = {_lua(value)}" for name, value in engine.items())
        life = f"in {self.key_place}" if self.key_place else "valid as long as this runs; to keep it, give a file"
        life += "" if self.key_place else " with --api-key-file"
        parts = [f"address: {self.url}", f"key: {self.key} ({life})", "", "On the other machine:"]
        if self.is_tunnelled:
            parts.append(f"  ssh -N -L {self.port}:{self._place(self.host)} {self.tunnel_host}")
        parts += [f"  (umask 077; echo {self.key} > {KEY_FILE})", "PowerShell, in place of the line above:"]
        # Where `Path.expanduser` leads on Windows; nobody else may read what lies there.
        folder = KEY_FILE.replace("~/", "$env:USERPROFILE\\")
        parts += [f'  Set-Content -Encoding ascii -Path "{folder}" -Value {self.key}']
        parts += ["VS Code, user settings:", f"  {vscode}"]
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


def shared_key(path: Path) -> str:
    """Returns the key that `--share` has added to a file of keys, or adds a new one; only the owner may read the file.

    Args:
        path: the file; it is made where it is missing.

    Raises:
        WrongUsage: the file cannot be read or written.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
        for words in map(str.split, key_lines(content)):
            if len(words) == 2 and words[0] == _name_of(words[1]):
                return words[1]
        key, encoding = new_key(), encoding_of(content)
        line_end = "\n".encode(encoding)
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "wb") as file:
            if content and not content.endswith(line_end):
                file.write(line_end)
            file.write(f"{_name_of(key)} {key}\n".encode(encoding))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WrongUsage(f"--api-key-file {path}: cannot be used ({reason})") from None
    return key


def _name_of(key: str) -> str:
    """Returns the name of a key that was made here."""
    return f"{_NAME}{key[:4]}"


def _lua(value: object) -> str:
    if isinstance(value, list):
        return "{ " + ", ".join(f"'{one}'" for one in value) + " }"
    return f"'{value}'"
