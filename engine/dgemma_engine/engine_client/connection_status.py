"""The state of the connection to the engine; a status also takes the place of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ConnectionState(Enum):
    """The state of the connection."""

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
        state: of the connection.
        message: one line for a person; for `FAILED` the cause and the remedy.
        percent: load progress, 0 to 100.
    """

    state: ConnectionState
    message: str = ""
    percent: int = 0
