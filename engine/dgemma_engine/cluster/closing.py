"""Variables that close what Ray leaves open; to be set before Ray is imported, which reads them then."""

from __future__ import annotations

from collections.abc import Mapping

_CLOSED = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


def closed(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns what is missing of a token for Ray's ports, and of no statistics to its makers.

    Args:
        environ: what the user has set stays.
    """
    return {name: value for name, value in _CLOSED.items() if name not in environ}
