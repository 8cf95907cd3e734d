from __future__ import annotations

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.protocol.messages import AdapterUse, Finish, Infill

from dgemma_lsp.engine_client.status import ServerStatus, StatusBoard, StatusKind
from dgemma_lsp.server.progress_bars import LoadProgress

READY = ServerStatus(kind=StatusKind.READY)
BUSY = ServerStatus(kind=StatusKind.BUSY)
ERROR = ServerStatus(kind=StatusKind.ERROR, message="out of memory")


def board() -> tuple[StatusBoard, list[ServerStatus], list[str]]:
    shown: list[ServerStatus] = []
    alarms: list[str] = []
    return StatusBoard(publish=shown.append, alarm=alarms.append, ask_engine=lambda: None), shown, alarms


def test_same_state_is_shown_once():
    tested, shown, _ = board()
    for status in (READY, READY, BUSY, READY):
        tested.show(status)
    assert shown == [READY, BUSY, READY]


def test_error_is_reported_once_until_a_request_is_answered():
    tested, _, alarms = board()
    for status in (ERROR, BUSY, ERROR, BUSY, ERROR):
        tested.show(status)
    assert alarms == ["out of memory"]
    tested.answered(Infill(text="", finish=Finish.EMPTY))
    tested.show(BUSY)
    tested.show(ERROR)
    assert alarms == ["out of memory"] * 2


def test_wire_form():
    assert BUSY.to_wire() == {
        "kind": "busy",
        "busy": True,
        "message": "",
        "percent": 0,
        "reason": "",
        "uri": "",
        "host": "",
        "adapter": "",
    }


def test_reason_is_sent_for_slow_and_inactive_only():
    assert ServerStatus(kind=StatusKind.SLOW, message="why", percent=100).to_wire() == {
        "kind": "slow", "busy": False, "message": "slow: why", "percent": 100, "reason": "why", "uri": "", "host": "",
        "adapter": "",
    }  # fmt: skip
    off = ServerStatus(kind=StatusKind.INACTIVE, message="off").to_wire()
    assert (off["message"], off["reason"]) == ("off", "off")
    assert ERROR.to_wire()["reason"] == ""


def answered(finish: Finish = Finish.EMPTY, **adapter: str) -> Infill:
    return Infill(text="", finish=finish, adapter=AdapterUse(**adapter))


def test_adapter_of_the_last_answer_is_named_and_a_fault_is_reported():
    shown: list[ServerStatus] = []
    board = StatusBoard(publish=shown.append, alarm=lambda _message: None, ask_engine=lambda: None)

    def after(infill: Infill) -> tuple[str, str]:
        board.answered(infill)
        board.show_current()
        return shown[-1].adapter, shown[-1].message

    board.connection_changed(ConnectionStatus(state=ConnectionState.READY, percent=100))
    assert (shown[-1].adapter, shown[-1].message) == ("", "")
    assert after(answered(root="/w/one")) == ("/w/one", "")
    # A request that ended early says nothing of the adapter.
    assert after(answered(Finish.CANCELLED)) == after(answered(Finish.DEADLINE)) == ("/w/one", "")
    assert after(answered(root="/w/two", fault="it is off")) == ("", "it is off")
    assert after(answered()) == ("", "")
    after(answered(root="/w/one"))
    board.connection_changed(ConnectionStatus(state=ConnectionState.STARTING))
    assert shown[-1].adapter == ""


def test_board_without_settings_shows_that_there_is_no_engine():
    tested, shown, _ = board()
    tested.show_current()
    assert (shown[-1].kind, shown[-1].message) == (StatusKind.INACTIVE, "no engine is connected")


def test_fault_stays_until_a_request_is_answered_or_the_connection_is_another():
    tested, shown, _ = board()
    fault = ConnectionStatus(state=ConnectionState.ABSENT, message="too much to do")
    ready = ConnectionStatus(state=ConnectionState.READY, percent=100)
    tested.connection_changed(ready)
    tested.request_failed(fault)
    for active in (True, False, True, False):
        tested.activity_changed(active)
    tested.connection_changed(ConnectionStatus(state=ConnectionState.READY, percent=100, message="engine at gpu"))
    assert [status.message for status in shown] == ["", "too much to do"]
    tested.off = "switched off"
    tested.show_current()
    tested.off = ""
    tested.show_current()
    assert [status.message for status in shown[2:]] == ["switched off", "too much to do"]
    tested.request_answered()
    assert (shown[-1].kind, shown[-1].message) == (StatusKind.READY, "engine at gpu")
    tested.request_failed(fault)
    tested.connection_changed(ConnectionStatus(state=ConnectionState.STARTING, message="looking"))
    tested.connection_changed(ready)
    assert shown[-1].kind is StatusKind.READY


class DrawnBar:
    def __init__(self, *, agrees: bool) -> None:
        self.agrees = agrees
        self.drawn: list[str] = []

    async def create(self, token: str) -> bool:
        return self.agrees

    def begin(self, token: str, status: ServerStatus) -> None:
        self.drawn.append(f"begin {status.percent}")

    def report(self, token: str, status: ServerStatus) -> None:
        self.drawn.append(f"report {status.percent}")

    def end(self, token: str) -> None:
        self.drawn.append("end")


async def drawn(*percents: int, agrees: bool = True, pauses: bool = True) -> list[str]:
    import asyncio

    bar = DrawnBar(agrees=agrees)
    progress = LoadProgress(bar)
    for percent in percents:
        progress.show(ServerStatus(kind=StatusKind.LOADING, percent=percent))
        if pauses:
            await asyncio.sleep(0.001)
    progress.show(READY)
    await asyncio.sleep(0.001)
    return bar.drawn


async def test_bar_is_begun_moved_and_ended():
    assert await drawn(10, 20, 30) == ["begin 10", "report 20", "report 30", "end"]


async def test_bar_that_the_editor_refuses_is_not_drawn():
    assert await drawn(10, agrees=False) == []


async def test_bar_is_not_drawn_when_loading_ended_before_the_editor_agreed():
    assert await drawn(10, 20, pauses=False) == []
