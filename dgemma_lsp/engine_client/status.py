"""What a status bar shows, as the parameters of `dgemma/status`: the states, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.model_store.choice import ModelChoice
from dgemma_engine.protocol.messages import AdapterUse, Finish, Infill
from dgemma_engine.protocol.status_messages import Status

# Answers in a row that came too late: one or two happen on any machine that does other work.
_MISSES = 3
# From this share of an answer's time on, the reason given is other windows, or the network.
_OTHERS_SHARE = 0.4


@dataclass(slots=True)
class SlowDetector:
    """Counts the answers in a row that came too late; each answer in time begins with a new one.

    Attributes:
        reason: why answers come late; empty before the third.
    """

    reason: str = ""
    _misses: int = 0
    _others: float = 0.0
    _network: float = 0.0

    def learn(self, infill: Infill, *, deadline_ms: float, engine: Status | None) -> None:
        """Adds one answer that came too late.

        Args:
            infill: the engine's answer.
            deadline_ms: how long it may take.
            engine: the engine's own status; None where it was not asked.
        """
        self._misses += 1
        total_ms = infill.timings_ms.get("total", 0.0)
        elsewhere_ms = infill.timings_ms.get("others", 0.0) + infill.timings_ms.get("queue", 0.0)
        self._others = elsewhere_ms / total_ms if total_ms > 0 else 0.0
        self._network = infill.timings_ms.get("network", 0.0) / deadline_ms if deadline_ms > 0 else 0.0
        if self._misses >= _MISSES:
            self.reason = self._why(deadline_ms, engine)

    def _why(self, deadline_ms: float, engine: Status | None) -> str:
        late = f"the last {self._misses} answers were cut off after {deadline_ms:g} ms"
        if self._network >= _OTHERS_SHARE:
            return f"{late}: the network to the engine's machine is slow"
        if self._others >= _OTHERS_SHARE:
            return f"{late}: the engine serves another window too"
        if engine is not None and engine.message:
            return f"{late}: {engine.message}"
        if engine is not None and engine.device == "cpu" and engine.model != TINY:
            return (
                f"{late}: {engine.model} runs on the processor; choose a smaller model or a device with dgemma.engine"
            )
        return f"{late}: raise dgemma.deadlineMs or lower dgemma.maxTokens"


METHOD = "dgemma/status"


class StatusKind(StrEnum):
    """What the user can expect of the next request."""

    READY = "ready"
    LOADING = "loading"
    BUSY = "busy"
    SLOW = "slow"
    INACTIVE = "inactive"
    ERROR = "error"


_KINDS = {
    ConnectionState.DISCONNECTED: StatusKind.INACTIVE,
    ConnectionState.STARTING: StatusKind.LOADING,
    ConnectionState.LOADING: StatusKind.LOADING,
    ConnectionState.READY: StatusKind.READY,
    ConnectionState.FAILED: StatusKind.ERROR,
    ConnectionState.ABSENT: StatusKind.INACTIVE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One state of the server.

    Attributes:
        kind: what the user can expect.
        message: one line for a person; for `ERROR` it names the cause and the remedy, for `SLOW` and `INACTIVE` it is
            the reason; may be empty.
        percent: load progress, 0 to 100.
        uri: the one document that it is about, for `INACTIVE`; empty where it holds everywhere.
        host: host and port of the engine on another machine that text is sent to; empty for one of this machine.
        adapter: the repository whose adapter took part in the last answer; empty where none did.
    """

    kind: StatusKind
    message: str = ""
    percent: int = 0
    uri: str = ""
    host: str = ""
    adapter: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Returns the notification's parameters."""
        is_slow = self.kind is StatusKind.SLOW
        return asdict(self) | {
            "kind": self.kind.value,
            "busy": self.kind in {StatusKind.BUSY, StatusKind.LOADING},
            "message": f"slow: {self.message}" if is_slow else self.message,
            "reason": self.message if is_slow or self.kind is StatusKind.INACTIVE else "",
        }


class ClientNotifier(Protocol):
    """Notifies the editor."""

    def publish(self, status: ServerStatus) -> None:
        """Shows a state in the status bar."""
        ...

    def error(self, message: str) -> None:
        """Shows the user an error."""
        ...

    def warning(self, message: str) -> None:
        """Shows the user a warning."""
        ...


class StatusBoard:
    """Decides what is shown; publishes a state only when it differs from the last one.

    Args:
        publish: called with every state that differs from the last.
        alarm: called with an error's message, once until a request is answered.
        ask_engine: begins to ask for the engine's own status, which becomes `engine`.

    Attributes:
        off: why completions are switched off; empty while they are on.
        model: which model answers, and which one is missing.
        engine: the engine's own status; None where it was not asked since it was connected.
        deadline_ms: how long an answer may take.
        host: host and port of the engine on another machine; empty for one of this machine.
        unasked: what the first request does, as a sentence; before there are settings, that no engine is connected.
        adapter: which adapter the last answer reports, or why none was used.
        is_refusing: whether the last request was refused.
    """

    def __init__(
        self,
        *,
        publish: Callable[[ServerStatus], None],
        alarm: Callable[[str], None],
        ask_engine: Callable[[], None],
    ) -> None:
        self.off = ""
        self.model = ModelChoice(runs="")
        self.engine: Status | None = None
        self.deadline_ms = 0.0
        self.host = ""
        self.unasked = "no engine is connected"
        self.adapter = AdapterUse()
        self._publish = publish
        self._alarm = alarm
        self._ask_engine = ask_engine
        self._last: ServerStatus | None = None
        self._alarmed: set[str] = set()
        self._connection = ConnectionStatus(state=ConnectionState.DISCONNECTED)
        self._fault: ConnectionStatus | None = None
        self._slow = SlowDetector()
        self._num_active = 0
        self.is_refusing = False

    def show(self, status: ServerStatus) -> None:
        """Publishes a state with the engine in use, unless it is the last one."""
        adapter = "" if self.adapter.fault else self.adapter.root
        status = replace(status, host=self.host, adapter=adapter)
        if status == self._last:
            return
        self._last = status
        self._publish(status)
        if status.kind is StatusKind.ERROR and status.message not in self._alarmed:
            self._alarmed.add(status.message)
            self._alarm(status.message)

    def show_current(self) -> None:
        """Shows why the last request failed, that the engine works on a request, or the state between requests."""
        is_ready, is_missing = self._connection.state is ConnectionState.READY, self.model.missing is not None
        if self._fault is not None and not self.off:
            status = self._of(self._fault)
        elif self._num_active and is_ready:
            status = ServerStatus(kind=StatusKind.BUSY, percent=100)
        elif self.off:
            status = ServerStatus(kind=StatusKind.INACTIVE, message=self.off)
        elif is_missing and not is_ready and not self.model.is_stand_in:
            # No engine can start, unless another process has fetched the model meanwhile.
            status = ServerStatus(kind=StatusKind.INACTIVE, message=self.model.notice)
        elif self._slow.reason and is_ready:
            status = ServerStatus(kind=StatusKind.SLOW, message=self._slow.reason, percent=100)
        else:
            status = self._of(self._connection)
            if is_ready:
                notice = self.model.notice if is_missing else self.adapter.fault
                status = replace(status, message=notice or status.message)
        self.show(status)

    def connection_changed(self, status: ConnectionStatus) -> None:
        """Shows a state of the connection to the engine."""
        self._connection = status
        if status.state is ConnectionState.READY:
            self.show_current()
        else:
            self._fault = None
            self._show_failure(status)

    def request_failed(self, status: ConnectionStatus) -> None:
        """Shows why a request failed; where the engine is connected, until another request is answered."""
        if self._connection.state is ConnectionState.READY:
            self._fault = status
        self._show_failure(status)

    def request_answered(self) -> None:
        """Clears the reason why an earlier request failed."""
        if self._fault is not None:
            self._fault = None
            self.show_current()

    def activity_changed(self, active: bool) -> None:
        """Shows whether the engine works on a request; completions and each fill are counted separately."""
        self._num_active += 1 if active else -1
        self.show_current()

    def answered(self, infill: Infill) -> None:
        """Takes an answer of the engine into account."""
        # A request has succeeded: every alarm may come again.
        self._alarmed.clear()
        if infill.finish is Finish.DEADLINE:
            if self.engine is None:
                self._ask_engine()
            self._slow.learn(infill, deadline_ms=self.deadline_ms, engine=self.engine)
        elif infill.finish is not Finish.CANCELLED:
            # A cancelled or late request may not have been started by the engine, and says nothing of the adapter.
            self._slow, self.adapter = SlowDetector(), infill.adapter

    def _show_failure(self, status: ConnectionStatus) -> None:
        self._slow, self.engine, self.adapter = SlowDetector(), None, AdapterUse()
        self.show(self._of(status))

    def _of(self, status: ConnectionStatus) -> ServerStatus:
        """Returns what to show for a state of the connection to the engine."""
        kind = _KINDS[status.state]
        if kind is StatusKind.INACTIVE:
            return ServerStatus(kind=kind, message=status.message or self.unasked)
        return ServerStatus(kind=kind, message=status.message, percent=status.percent)

    def show_refusal(self, why: str | None, uri: str) -> None:
        """Shows why nothing is offered in a document, or for None that completions are offered again."""
        if why:
            self.show(ServerStatus(kind=StatusKind.INACTIVE, message=why, uri=uri))
        elif self.is_refusing:
            self.show_current()
        self.is_refusing = bool(why)
