"""URLs without what may hold a key: user info, query and fragment. Standard library only; connects to nothing."""

from __future__ import annotations

import base64
import re
import urllib.parse

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_QUERY = re.compile(r"\?\S*=\S*")


def plain_url(url: str) -> str:
    """Returns a URL for a message: scheme, host and path.

    An `@` after the authority may end a password that holds an unquoted `/`, `?` or `#`: then only the scheme is
    returned.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return f"{url.partition(':')[0]}:..." if ":" in url else "..."
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    path = re.split(r"[?#]", rest[len(authority) :], maxsplit=1)[0]
    if "@" in rest[len(authority) :] and "@" not in authority:
        return f"{scheme}://..."
    return f"{scheme}://{authority.rpartition('@')[2]}{path if '@' not in path else '/...'}"


def without_secrets(text: str) -> str:
    """Returns a text with each URL in it as `plain_url` returns it, and without the queries of relative URLs."""
    return _QUERY.sub("", _URL.sub(lambda found: plain_url(found[0]), text))


def split_user(url: str) -> tuple[str, str]:
    """Returns a URL without user info, and the `Authorization` header that sends it; empty where there is none."""
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, found, host = authority.rpartition("@")
    if not found:
        return url, ""
    names = urllib.parse.unquote(user) + ("" if ":" in user else ":")
    header = f"Basic {base64.b64encode(names.encode()).decode()}"
    return scheme + separator + host + rest[len(authority) :], header
