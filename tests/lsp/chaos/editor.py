"""How a client answers the server's requests: properly, wrongly, twice, late or never."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Answering(Enum):
    """One way to answer."""

    PROPER = "proper"
    NULL = "null"
    ERROR = "error"
    NUMBER = "number"
    TEXT = "text"
    LIST = "list"
    OBJECT = "object"
    DEEP = "deep"
    TWICE = "twice"
    TWICE_DIFFERENTLY = "twice, differently"
    ERROR_WITHOUT_CODE = "error without code"
    ERROR_AS_TEXT = "error as text"
    RESULT_AND_ERROR = "result and error"
    NEITHER = "neither result nor error"
    OTHER_ID = "other id"
    NEVER = "never"


_NO_ANSWER = {Answering.NEITHER, Answering.OTHER_ID, Answering.NEVER}
_ERROR = {"code": -32803, "message": "the editor would not"}
_RESULTS: dict[Answering, Any] = {
    Answering.NULL: None,
    Answering.NUMBER: 7,
    Answering.TEXT: "true",
    Answering.LIST: [None, {"a": 1}],
    Answering.OBJECT: {"applied": "maybe", "x": None},
    Answering.DEEP: {"jsonrpc": "2.0", "id": 4_711, "method": "shutdown", "result": {"jsonrpc": "2.0", "id": 1}},
}


class ChaosEditor:
    """Answers one server's requests.

    Attributes:
        answering: how requests are answered from now on.
        settings: the proper answer to `workspace/configuration`.
    """

    def __init__(self) -> None:
        self.answering = Answering.PROPER
        self.settings: Any = {}
        self._unanswered: list[dict[str, Any]] = []

    @property
    def owes(self) -> bool:
        """Whether a request of the server is unanswered."""
        return bool(self._unanswered)

    def answers(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the answers to send now."""
        if self.answering in _NO_ANSWER:
            self._unanswered.append(request)
        return self._as(self.answering, request)

    def late(self, answering: Answering) -> list[dict[str, Any]]:
        """Returns the answer to the oldest unanswered request; one to a request that nobody sent if there is none."""
        if not self._unanswered:
            return self._as(answering, {"id": "never asked", "method": ""})
        if answering in _NO_ANSWER:
            return self._as(answering, self._unanswered[0])
        return self._as(answering, self._unanswered.pop(0))

    def _as(self, answering: Answering, request: dict[str, Any]) -> list[dict[str, Any]]:
        start = {"jsonrpc": "2.0", "id": request["id"]}
        proper = start | {"result": self._proper(request["method"])}
        match answering:
            case Answering.PROPER:
                return [proper]
            case Answering.TWICE:
                return [proper, proper]
            case Answering.TWICE_DIFFERENTLY:
                return [start | {"error": _ERROR}, proper]
            case Answering.ERROR:
                return [start | {"error": _ERROR}]
            case Answering.ERROR_WITHOUT_CODE:
                return [start | {"error": {"message": "no"}}]
            case Answering.ERROR_AS_TEXT:
                return [start | {"error": "no"}]
            case Answering.RESULT_AND_ERROR:
                return [proper | {"error": _ERROR}]
            case Answering.NEITHER:
                return [start]
            case Answering.OTHER_ID:
                return [proper | {"id": 4_711_000}, proper | {"id": None}]
            case Answering.NEVER:
                return []
            case _:
                return [start | {"result": _RESULTS[answering]}]

    def _proper(self, method: str) -> Any:
        if method == "workspace/configuration":
            return [self.settings]
        return {"applied": True} if method == "workspace/applyEdit" else None
