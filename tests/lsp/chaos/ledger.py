"""Records every request with the answers it may get, and checks each answer. Independent of processes and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32600, -32601, -32602
NOT_INITIALIZED, CANCELLED, FAILED, MODIFIED = -32002, -32800, -32803, -32801
RESULT = 0
"""In a set of codes: stands for a result."""

Id = int | str
_Key = tuple[type, Id]


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request that was sent.

    Attributes:
        msg_id: its id.
        kind: of the step that sent it.
        message: text of the request, for the report.
        legal: codes of errors that may answer it; `RESULT` stands for a result.
        fits: whether a result has the right form.
        waits_for_editor: whether it may wait for as long as the editor owes an answer.
        answers: how many came.
        refused: whether the answer was an error.
        given_up: whether it was recorded as unanswered.
    """

    msg_id: Id
    kind: str
    message: str
    legal: frozenset[int]
    fits: Callable[[Any], bool] = lambda _result: True
    waits_for_editor: bool = False
    answers: int = 0
    refused: bool = False
    given_up: bool = False


@dataclass(slots=True)
class Report:
    """Counts over many sessions.

    Attributes:
        steps: what the client did, by kind.
        requests: steps that must be answered, by kind.
        offered: requests with a result that is not empty, by kind.
        wrong: faults of each sort, by kind of step.
        sessions: how many began.
        endings: how sessions ended.
        seeds: random seeds of the sessions.
        faults: one description each.
    """

    steps: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    offered: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, Counter[str]] = field(default_factory=dict)
    sessions: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    seeds: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str, kind: str, words: str) -> None:
        """Counts a fault.

        Args:
            what: `unanswered`, `answered_twice`, `unknown_id`, `wrong_code`, `crash`, ...
            kind: of the step that it belongs to.
            words: description for the report.
        """
        self.wrong.setdefault(what, Counter())[kind] += 1
        self.faults.append(f"{what} [{kind}]: {words}")


class Ledger:
    """The requests of one session.

    Args:
        report: what is counted.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._asked: dict[_Key, Asked] = {}
        self.faults: list[str] = []

    def expect(self, asked: Asked) -> None:
        """Records a request that must be answered once."""
        key = (type(asked.msg_id), asked.msg_id)
        assert key not in self._asked, "an id is used once"
        self._asked[key] = asked
        self._report.requests[asked.kind] += 1

    def answered(self, message: dict[str, Any]) -> None:
        """Checks an answer."""
        msg_id = message.get("id")
        if ("result" in message) == ("error" in message):
            self.fault("malformed", "answer", f"neither result nor error, or both: {message}")
        if msg_id is None:  # What could not be read has no id.
            if "error" not in message:
                self.fault("malformed", "answer", f"a result without id: {message}")
            return
        key = (type(msg_id), msg_id)
        asked = self._asked.get(key) if isinstance(msg_id, int | str) else None
        if asked is None:
            self.fault("unknown_id", "answer", str(message)[:300])
            return
        asked.answers += 1
        if asked.answers > 1:
            self.fault("late" if asked.given_up else "answered_twice", asked.kind, f"{asked.message} <- {message}")
            return
        asked.refused = "error" in message
        code = (message["error"] or {}).get("code") if asked.refused else RESULT
        if code not in asked.legal:
            legal = ", ".join(map(str, sorted(asked.legal)))
            self.fault("wrong_code", asked.kind, f"{asked.message} <- {str(message)[:300]}; right: {legal}")
        elif code == RESULT and not asked.fits(message.get("result")):
            self.fault("wrong_result", asked.kind, f"{asked.message} <- {message}")
        elif code == RESULT and message.get("result"):
            self._report.offered[asked.kind] += 1

    def outstanding(self, *, editor_owes: bool = False) -> list[Asked]:
        """Returns the requests without an answer, except those that may wait for an editor that owes one."""
        return [
            asked
            for asked in self._asked.values()
            if not asked.answers and not (editor_owes and asked.waits_for_editor)
        ]

    def give_up(self, *, editor_owes: bool) -> None:
        """Records every request without an answer as a fault."""
        for asked in self.outstanding(editor_owes=editor_owes):
            asked.answers, asked.given_up = 1, True
            self.fault("unanswered", asked.kind, asked.message)

    def fault(self, what: str, kind: str, words: str) -> None:
        """Records a fault of this session."""
        self.faults.append(f"{what} [{kind}]: {words}")
        self._report.fault(what, kind, words)
