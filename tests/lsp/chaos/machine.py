"""A client's moves as a hypothesis state machine over the real server: a failing session is shrunk to a short one.

No move depends on the server's answers or their timing, so that a session can be replayed.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.lsp.chaos import messages as say
from tests.lsp.chaos.client import ABSENT, ChaosClient, Ending, State
from tests.lsp.chaos.editor import Answering
from tests.lsp.chaos.engine import ChaosEngine
from tests.lsp.chaos.ledger import RESULT, Report
from tests.lsp.chaos.moves import DocumentMoves
from tests.lsp.chaos.process import ServerPool
from tests.lsp.chaos.wire import BadFrame, Header, bad_frame

# Steps after `shutdown` before the session ends.
_AFTERLIFE = 12
_SOME = st.sampled_from
_YES = st.booleans()


class ChaosMachine(DocumentMoves):
    """One session.

    Args:
        pool: supplies a server.
        engine: the engine of all servers of the pool; None leaves the engine alone.
        report: receives the counts.
        raises: whether a fault fails the session; False only counts it.
    """

    def __init__(self, pool: ServerPool, engine: ChaosEngine | None, report: Report, *, raises: bool) -> None:
        super().__init__(ChaosClient(pool.take(), report))
        self._pool, self._engine, self._report, self._raises = pool, engine, report, raises
        self._ending = Ending.POLITE
        self._num_steps = 0
        self._num_after = 0
        self._shutdown_from = 0
        self._old: list[ChaosClient] = []

    @initialize(
        ending=_SOME(list(Ending)), begun=_YES, shutdown_from=_SOME([1_000, 1_000, 250, 100, 5]), more=_SOME([1, 0, 2])
    )
    def begin(self, ending: Ending, begun: bool, shutdown_from: int, more: int) -> None:
        self._ending, self._shutdown_from = ending, shutdown_from
        if begun:
            self.initialize(
                capabilities=say.CAPABILITIES[more], options=say.OPTIONS[0], trace="off", where={}, wait=False
            )
            self.initialized({})
            self.open(uri=say.URIS[0], text=say.TEXTS[0], language="python", version=1)

    @rule(
        capabilities=_SOME(say.CAPABILITIES),
        options=_SOME(say.OPTIONS),
        trace=_SOME(say.TRACES),
        where=_SOME(say.FOLDERS),
        wait=_YES,
    )
    def initialize(self, capabilities: Any, options: Any, trace: Any, where: Any, wait: bool) -> None:
        pid = self._client.editor_process() if self._ending is Ending.ORPHANED else None
        params = {"processId": pid, "capabilities": capabilities, "initializationOptions": options, "trace": trace}
        self._client.open_session("initialize", params | where, legal=frozenset({RESULT}), wait=wait)

    @rule(params=_SOME([ABSENT, *say.BAD_INITIALIZE]))
    def initialize_badly(self, params: Any) -> None:
        legal = frozenset({RESULT}) | say.REFUSED
        self._client.open_session("initialize badly", params, legal=legal, wait=True)

    @rule(params=_SOME([{}, None, ABSENT, [], 7]))
    def initialized(self, params: Any) -> None:
        self._client.notify("initialized", "initialized", params)

    @rule(method=_SOME(["inlineCompletion", "completion", "codeAction"]), params=_SOME([ABSENT, *say.BAD_PARAMS]))
    def ask_without(self, method: str, params: Any) -> None:
        legal = say.REFUSED | say.NOT_FOUND if method == "completion" else say.REFUSED
        self._client.request("bad params", f"textDocument/{method}", params, legal=legal)

    @rule(question=_SOME(say.OWN), absent=_YES)
    def own(self, question: Any, absent: bool) -> None:
        method, params, legal = question
        self._client.request("own", method, ABSENT if absent and params is None else params, legal=legal)

    @rule(one=_SOME(say.ODD_METHODS), absent=_YES, as_text=_YES)
    def odd_method(self, one: Any, absent: bool, as_text: bool) -> None:
        method, params, legal = one
        self._client.request("odd method", method, ABSENT if absent else params, legal=legal, as_text=as_text)

    @rule(version=_SOME(["1.0", ABSENT, None, 2.0]))
    def odd_version(self, version: Any) -> None:
        self._client.request("odd version", "dgemma/tally", {}, legal=say.INVALID | {RESULT}, version=version)

    @rule(message=_SOME(say.SHAPELESS))
    def shapeless(self, message: Any) -> None:
        self._client.step("shapeless")
        self._client.send(message)

    @rule(one=_SOME(say.ODD_NOTIFICATIONS), absent=_YES)
    def odd_notification(self, one: Any, absent: bool) -> None:
        method, params = one
        self._client.notify("odd notification", method, ABSENT if absent and params is None else params)

    @rule(back=_SOME([1, 2, 5, 50]), times=_SOME([1, 2]))
    def cancel(self, back: int, times: int) -> None:
        for msg_id in self._client.ids[-back:][:1] * times:
            self._client.notify("cancel", "$/cancelRequest", {"id": msg_id})

    @rule(msg_id=_SOME([ABSENT, *say.ODD_IDS]))
    def cancel_nothing(self, msg_id: Any) -> None:
        self._client.notify("cancel nothing", "$/cancelRequest", {} if msg_id is ABSENT else {"id": msg_id})

    @rule(then=_SOME(["cancel", "edit", "close", "ask", "answer"]), menu=_YES)
    def ask_slow(self, then: str, menu: bool) -> None:
        """Sends a request that keeps the engine busy for a minute, and a message that ends it."""
        uri, client = f"{say.FOLDER}/slow.py", self._client
        self.open(uri, "SLOW", "python", 1)
        place = {"line": 0, "character": 4}
        params = {"textDocument": {"uri": uri}, "position": place, "context": {"triggerKind": 1}}
        asked = self._ask(params, say.ANSWERED, as_text=menu).msg_id
        if then == "edit":
            self._change(uri, [{"text": "x"}], self._next_version())
        elif then == "close":
            self.close(uri)
        elif then == "ask":
            self._ask(params | {"position": say.FIRST}, say.ANSWERED, as_text=False)
        elif then == "answer":  # The id of the client's own request, which no request of the server has.
            client.step("answer to nothing")
            client.send({"jsonrpc": "2.0", "id": asked, "result": None})
        if self._num_steps >= self._shutdown_from:
            self._shut_down()
        else:
            client.notify("cancel", "$/cancelRequest", {"id": asked})

    @rule(settings=_SOME(say.SETTINGS))
    def configure(self, settings: Any) -> None:
        self._client.editor.settings = settings
        self._client.notify("settings", "workspace/didChangeConfiguration", {"settings": settings})

    @rule(answering=_SOME(list(Answering)))
    def answer_so(self, answering: Answering) -> None:
        self._client.editor.answering = answering

    @rule(answering=_SOME(list(Answering)))
    def answer_late(self, answering: Answering) -> None:
        self._client.answer_late(answering)

    @rule(kind=_SOME(list(BadFrame)))
    def bad_frame(self, kind: BadFrame) -> None:
        self._client.step("bad frame")
        self._client.send_bytes(bad_frame(kind))

    @rule(header=_SOME(list(Header)))
    def spell_headers(self, header: Header) -> None:
        self._client.header = header

    @rule()
    def settle(self) -> None:
        self._client.settle()

    @rule(answering=_SOME([Answering.PROPER, Answering.NULL, Answering.ERROR]))
    def settle_all(self, answering: Answering) -> None:
        while self._client.editor.owes:
            self._client.answer_late(answering)
        self._client.settle()

    @precondition(lambda self: self._engine is not None)
    @rule(dies=_SOME([False] * 9 + [True]))
    def engine(self, dies: bool) -> None:
        assert self._engine is not None
        if dies:
            self._client.step("engine dies")
            self._engine.die()
        else:
            self._engine.start()

    @precondition(lambda self: self._num_steps >= self._shutdown_from)
    @rule()
    def shutdown(self) -> None:
        self._shut_down()

    def check_invariants(self, *args: Any, **kwargs: Any) -> None:
        self._num_steps += 1
        if self._client.state is State.SHUT:
            self._num_after += 1
            if self._num_after > _AFTERLIFE:
                self._renew()
        super().check_invariants(*args, **kwargs)

    def teardown(self) -> None:
        if self._engine is not None:
            self._engine.start()
        self._client.end(self._ending)
        faults = [fault for client in [*self._old, self._client] for fault in client.ledger.faults]
        assert not (self._raises and faults), "\n" + "\n".join(faults)

    def _renew(self) -> None:
        """Ends the session and begins another."""
        self._client.end(self._ending)
        self._old.append(self._client)
        self._client = ChaosClient(self._pool.take(), self._report)
        self._num_after = self._num_steps = 0

    def _shut_down(self) -> None:
        self._client.shut_down()
