"""Warm-up requests: the engine answers them at startup, and pays one-time costs then."""

from __future__ import annotations

from dgemma_engine.protocol.messages import Context

_PREFIX = "def f(x):\n    return "
# Long enough that its tokens fill large tiles of every expert of the released model.
_LONG_PREFIX = "x = 1\n" * 600 + _PREFIX


def warmup_requests(*, compiles: bool) -> list[Context]:
    """Returns the requests.

    Args:
        compiles: whether kernels are compiled when they first run: those for a long prompt, for a short one and for
            what is typed after it are different ones.
    """
    asked = [("long", _LONG_PREFIX), ("short", _PREFIX), ("short", _PREFIX + "x")] if compiles else [("", _PREFIX)]
    return [Context(document=document, prefix=prefix, suffix="\n") for document, prefix in asked]
