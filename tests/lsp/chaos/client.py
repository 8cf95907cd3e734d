"""A client that sends any message at any time and records the answers: one session with one server process.

What may answer a request follows from what was sent before it, because the server reads in order.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from tests.lsp.chaos.editor import Answering, ChaosEditor
from tests.lsp.chaos.ledger import INVALID_REQUEST, NOT_INITIALIZED, RESULT, Asked, Id, Ledger, Report
from tests.lsp.chaos.process import ServerProcess
from tests.lsp.chaos.wire import FrameReader, Header, encode, frame

ABSENT: Any = object()
# Long, because a server that gets little processor time is slow and still answers.
PATIENCE_S = 60.0
_SIGNS_OF_A_FAULT = ("Traceback", "ERROR asyncio", "never retrieved", "never awaited")


class State(Enum):
    """Phase of the session, by the messages sent so far."""

    NEW = auto()
    RUNNING = auto()
    SHUT = auto()
    OVER = auto()


class Ending(Enum):
    """How a session ends."""

    POLITE = "shutdown, exit"
    EXIT = "exit"
    HASTY = "shutdown and exit at once"
    CLOSED = "standard input closed"
    CUT = "closed in mid-message"
    KILLED = "both pipes closed"
    ORPHANED = "editor killed, its pipes held by another process"
    DEAF = "standard output closed"


class ChaosClient:
    """One session.

    Args:
        process: a server to which nothing was sent.
        report: receives the counts.

    Attributes:
        header: how headers are spelled from now on.
        editor: answers the server's requests.
    """

    def __init__(self, process: ServerProcess, report: Report) -> None:
        self._process = process
        self._report = report
        self.ledger = Ledger(report)
        self.editor = ChaosEditor()
        self.header = Header.PLAIN
        self.state = State.NEW
        self._frames = FrameReader()
        self._number = 0
        self._patience_s = PATIENCE_S
        self.ids: list[Id] = []
        self._stand_in: subprocess.Popen[bytes] | None = None
        self._is_watched = False
        report.sessions += 1

    def step(self, kind: str) -> None:
        """Counts what the client does."""
        self._report.steps[kind] += 1

    def new_id(self, *, as_text: bool = False) -> Id:
        """Returns an unused id, unusual values first."""
        self._number += 1
        odd: list[Id] = ["", "0"] if as_text else [0, -1]
        if self._number <= 4 and odd[self._number % 2] not in self.ids:
            return odd[self._number % 2]
        return f"{self._number}" if as_text else self._number + 1_000

    def request(
        self,
        kind: str,
        method: Any,
        params: Any = ABSENT,
        *,
        legal: frozenset[int],
        fits: Callable[[Any], bool] = lambda _result: True,
        waits_for_editor: bool = False,
        msg_id: Id | None = None,
        as_text: bool = False,
        version: Any = "2.0",
    ) -> Asked:
        """Sends a request; `legal` holds for one that is asked between `initialize` and `shutdown`."""
        self.step(kind)
        msg_id = self.new_id(as_text=as_text) if msg_id is None else msg_id
        self.ids.append(msg_id)
        message = {"jsonrpc": version, "id": msg_id, "method": method, "params": params}
        message = {name: value for name, value in message.items() if value is not ABSENT}
        if self.state is State.NEW and method != "initialize":
            legal = frozenset({NOT_INITIALIZED}) | (legal & {INVALID_REQUEST})
        elif self.state is State.SHUT:
            legal = frozenset({INVALID_REQUEST})
        asked = Asked(
            msg_id=msg_id,
            kind=kind,
            message=str(message)[:600],
            legal=legal,
            fits=fits,
            waits_for_editor=waits_for_editor,
        )
        if self.state is not State.OVER:
            self.ledger.expect(asked)
            self.send(message)
        return asked

    def notify(self, kind: str, method: Any, params: Any = ABSENT) -> None:
        """Sends a notification."""
        self.step(kind)
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        self.send({name: value for name, value in message.items() if value is not ABSENT})

    def open_session(self, kind: str, params: Any, *, legal: frozenset[int], wait: bool) -> None:
        """Asks the server to initialize.

        Args:
            kind: of the step.
            params: of the request.
            legal: codes that may answer until one request succeeds; every later one must be refused.
            wait: whether to wait for the answer and read its success from it; False assumes success.
        """
        new = self.state is State.NEW
        legal = legal if new else frozenset({INVALID_REQUEST})
        asked = self.request(kind, "initialize", params, legal=legal, fits=_has_capabilities)
        if new and wait:
            self.settle()
        if new and self.state is State.NEW and not asked.refused:
            self.state = State.RUNNING
            self._is_watched = isinstance(params, dict) and isinstance(params.get("processId"), int)

    def editor_process(self) -> int:
        """Returns the id of a process that stands in for the editor; `Ending.ORPHANED` kills it."""
        if self._stand_in is None:
            self._stand_in = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
        return self._stand_in.pid

    def shut_down(self) -> None:
        """Asks the server to shut down."""
        was = self.state
        self.request("shutdown", "shutdown", legal=frozenset({RESULT}), fits=lambda result: result is None)
        if was is State.RUNNING:
            self.state = State.SHUT

    def send(self, message: Any) -> None:
        """Sends a message as it is."""
        self.send_bytes(frame(encode(message), self.header))

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes, and reads what has arrived."""
        if self.state is not State.OVER:
            self._process.write(data)
            self.pump(0.0)

    def pump(self, wait_s: float) -> None:
        """Reads the server's messages, and answers its requests."""
        if self.state is State.OVER:
            return
        data = self._process.exchange(wait_s)
        if data:
            self._hear(data)
        elif data is None:
            self.state = State.OVER
            exit_code = self._process.end(PATIENCE_S)
            errors = self._process.errors()[-2_000:]
            self.ledger.fault("crash", "process", f"ended by itself with exit code {exit_code}: {errors}")

    def settle(self) -> None:
        """Waits until every request is answered, except those that wait for an answer of the editor."""
        give_up_s = time.monotonic() + self._patience_s
        while self.state is not State.OVER and self.ledger.outstanding(editor_owes=self.editor.owes):
            if time.monotonic() > give_up_s:
                self._give_up(editor_owes=self.editor.owes)
                return
            self.pump(0.05)

    def answer_late(self, answering: Answering) -> None:
        """Answers the oldest request of the server that is unanswered."""
        self.step("late answer")
        for answer in self.editor.late(answering):
            self.send(answer)

    def end(self, ending: Ending) -> None:
        """Ends the session and checks the exit code and standard error."""
        if self.state is not State.OVER:
            self._report.endings[ending.value] += 1
            expected = self._say_goodbye(ending)
            self.state = State.OVER
            exit_code = self._drain()
            if exit_code is None:
                self.ledger.fault("not_ended", ending.value, f"lives {PATIENCE_S:g} s later")
            elif expected is not None and exit_code != expected:
                self.ledger.fault("exit_code", ending.value, f"{exit_code} instead of {expected}")
            if ending is Ending.POLITE:
                self._give_up(editor_owes=False)
        errors = self._process.errors()
        if (found := min((at for sign in _SIGNS_OF_A_FAULT if (at := errors.find(sign)) >= 0), default=-1)) >= 0:
            self.ledger.fault("traceback", ending.value, errors[found : found + 2_000])
        self._process.close()
        self._end_stand_in()

    def _say_goodbye(self, ending: Ending) -> int | None:
        """Ends the session in one way; returns the expected exit code, None for any."""
        if ending in {Ending.POLITE, Ending.HASTY} and self.state is not State.SHUT:
            self.shut_down()
        expected = 0 if self.state is State.SHUT else 1
        if ending is Ending.POLITE:
            self._await_shutdown()
        if ending in {Ending.POLITE, Ending.HASTY, Ending.EXIT}:
            self.notify("exit", "exit")
        elif ending is Ending.CUT:
            self.send_bytes(b'Content-Length: 100\r\n\r\n{"jsonrpc": "2.0", "id"')
        elif ending is Ending.DEAF:
            self._process.close_stdout()
            self._process.write(frame(encode({"jsonrpc": "2.0", "id": "deaf", "method": "dgemma/tally", "params": {}})))
        if (heard := self._process.flush(PATIENCE_S)) and ending is not Ending.DEAF:
            self._hear(heard)
        if ending is Ending.ORPHANED and self._is_watched:
            # A process that ends before `initialize` is read cannot be told from one in another container.
            self.settle()
            self._end_stand_in()
            return None
        if ending in {Ending.CLOSED, Ending.CUT, Ending.KILLED, Ending.ORPHANED}:
            self._process.close_stdin()
        if ending in {Ending.KILLED, Ending.ORPHANED}:
            self._process.close_stdout()
        return expected if ending in {Ending.POLITE, Ending.EXIT} else None

    def _end_stand_in(self) -> None:
        if self._stand_in is not None:
            self._stand_in.kill()
            self._stand_in.wait()
            self._stand_in = None

    def _await_shutdown(self) -> None:
        """Waits for every answer: `shutdown` also ends requests that wait for an answer of the editor."""
        give_up_s = time.monotonic() + self._patience_s
        while self.state is not State.OVER and self.ledger.outstanding() and time.monotonic() < give_up_s:
            self.pump(0.05)
        self._give_up(editor_owes=False)

    def _give_up(self, *, editor_owes: bool) -> None:
        """Records the unanswered requests, and shortens later waits for such a server."""
        if self.ledger.outstanding(editor_owes=editor_owes):
            self._patience_s = PATIENCE_S / 20
            self.ledger.give_up(editor_owes=editor_owes)

    def _drain(self) -> int | None:
        """Reads to the end of the server's output; returns the exit code of the process."""
        give_up_s = time.monotonic() + self._patience_s
        while (left_s := give_up_s - time.monotonic()) > 0:
            if (data := self._process.exchange(min(left_s, 0.5))) is None:
                break
            if data:
                self._hear(data)
        return self._process.end(PATIENCE_S)

    def _hear(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except ValueError as error:
            self.ledger.fault("malformed", "frame", str(error))
            self._frames.rest = b""
            return
        for message in messages:
            if "method" not in message:
                self.ledger.answered(message)
            elif self.state is State.NEW and not self.ids:
                self.ledger.fault("too_early", "server", str(message)[:300])
            elif "id" in message:
                for answer in self.editor.answers(message):
                    self.send_queued(answer)

    def send_queued(self, message: Any) -> None:
        """Sends a message with the next exchange."""
        self._process.write(frame(encode(message), self.header))


def _has_capabilities(result: Any) -> bool:
    return isinstance(result, dict) and isinstance(result.get("capabilities"), dict)
