"""Environment variables that Ray reads on import: a token for its ports, no usage statistics, more time to start."""

from __future__ import annotations

from collections.abc import Mapping

_CLOSED = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's handler ends the process with a dump, also on SIGTERM.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    # Serve ends a proxy that is not up within 5 seconds, and its start with it; on a busy machine it takes longer.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
# Ray takes 127.0.0.1 as this machine's address only where it is told that no other machine can join, as it is on other
# systems by default; given as an option, Ray replaces it by an address that others reach.
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def closed(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that are not set yet: a token for ports, no statistics, loopback addresses, time to start.

    Args:
        environ: variables that the user has set stay. With `RAY_ADDRESS` a Ray is joined, which has its own addresses.
    """
    wanted = _CLOSED if environ.get("RAY_ADDRESS") else _CLOSED | _ALONE
    return {name: value for name, value in wanted.items() if name not in environ}
