"""How far the connection to the engine is; a status is also what stands in for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ConnectionState(Enum):
    """How far the connection is."""

    DISCONNECTED = "disconnected"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """What the connection is doing; returned in place of an `Infill`.

    Attributes:
        state: how far the connection is.
        message: one line for a person; for `FAILED` the cause and the remedy.
        percent: load progress, 0 to 100.
    """

    state: ConnectionState
    message: str = ""
    percent: int = 0
