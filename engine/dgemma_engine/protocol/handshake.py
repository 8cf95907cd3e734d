"""The greeting that an engine sends to each new connection, and the errors for versions that do not match.

Engines outlive updates of the package, and a message with an unknown field is refused. Standard library only;
independent of the transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from dgemma_engine.errors import NewerEngine, OlderEngine

HELLO = "engine/hello"

# Counts up when a message of this package changes so that an older version refuses it.
PROTOCOL = 8

_NEWER = (
    "the running engine is of a newer version; restart this editor once its server is updated, or end the engine: "
    "dgemma-engine stop"
)
_OLDER = "the running engine is of an older version; close the other windows that use it, or end it: dgemma-engine stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The version of an engine's messages.

    Attributes:
        protocol: its `PROTOCOL`; 0 for an older engine, which sends no greeting.
    """

    protocol: int = 0

    def to_wire(self) -> dict[str, Any]:
        """Returns a JSON-ready dict."""
        return {"protocol": self.protocol}

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Reads the greeting of any version: unknown fields are ignored, and 0 stands for what cannot be read."""
        protocol = cast("Mapping[str, object]", wire).get("protocol") if isinstance(wire, Mapping) else None
        return cls(protocol=protocol if isinstance(protocol, int) else 0)

    def verify(self) -> None:
        """Checks that this client can use the engine.

        Raises:
            OlderEngine: it is of an older version; the only kind that a client may replace, so that windows of two
                versions never end each other's engines in turn.
            NewerEngine: it is of a newer version.
        """
        if self.protocol < PROTOCOL:
            raise OlderEngine(_OLDER)
        if self.protocol > PROTOCOL:
            raise NewerEngine(_NEWER)
