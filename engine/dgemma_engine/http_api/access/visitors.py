"""Valid `Host` and `Origin` headers, so that no web page can use an engine on its visitor's machine.

A page whose own host name resolves to 127.0.0.1 (DNS rebinding) sends that name as `Host`. A page that posts to
127.0.0.1 directly sends its `Origin`. Programs that are no browsers send an address or `localhost`, and no `Origin`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

# Pages of an editor's own window, which no web site can have.
_EDITOR_SCHEMES = ("vscode-webview", "vscode-file", "app", "tauri")


def is_known_host(host: str, *, known: Collection[str]) -> bool:
    """Returns whether a request names this server in a way that no foreign web site can.

    Args:
        host: the header, with or without a port.
        known: further names that lead here.
    """
    name = _name(host)
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost") or name in known:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_known_origin(origin: str, *, host: str, known: Collection[str]) -> bool:
    """Returns whether a page may call: one of this server, of an editor's window, or one that the user has named.

    Args:
        origin: the header.
        host: the header `Host` of the same request, which is known.
        known: origins that the user has named.
    """
    if origin in known:
        return True
    scheme, found, rest = origin.partition("://")
    if not found:
        return False
    return scheme in _EDITOR_SCHEMES or (scheme in ("http", "https") and rest.lower() == host.lower())


def _name(host: str) -> str | None:
    """Returns the host without its port, in lower case; None for one that is malformed."""
    if not host or any(char in host for char in "/?#@\\ \t"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
        name = parts.hostname
    except ValueError:
        return None
    return name.rstrip(".") if name else None
