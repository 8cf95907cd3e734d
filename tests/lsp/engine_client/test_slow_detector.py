from __future__ import annotations

import pytest
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.protocol.messages import Finish, Infill
from dgemma_engine.protocol.status_messages import EngineState, Status

from dgemma_lsp.engine_client.status import ServerStatus, SlowDetector, StatusBoard, StatusKind


def late(**timings_ms: float) -> Infill:
    return Infill(text="", finish=Finish.DEADLINE, timings_ms={"total": 100.0} | timings_ms)


def engine(model: str, device: str, message: str = "") -> Status:
    return Status(
        state=EngineState.READY, percent=100, message=message, model=model, model_path="", device=device, pid=1,
        version="1", uptime_s=1.0, memory_bytes=1, device_memory_bytes=0, clients=1, requests={}, denoising_steps=1,
        stages={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("infill", "status", "why"),
    [
        (late(others=50.0), engine("26B", "cpu"), "serves another window"),
        (late(queue=60.0), None, "serves another window"),
        (late(others=10.0), engine("26B", "cpu"), "26B runs on the processor"),
        (late(), engine("26B", "cuda:0"), "raise dgemma.deadlineMs"),
        (late(), engine("tiny", "cpu"), "raise dgemma.deadlineMs"),
        (late(), engine("26B", "cuda:0", "a step takes 10 times as long"), "a step takes 10 times as long"),
        (late(total=0.0), None, "raise dgemma.deadlineMs"),
    ],
)
def test_third_miss_in_a_row_has_a_reason(infill: Infill, status: Status | None, why: str) -> None:
    slowness = SlowDetector()
    for _ in range(2):
        slowness.learn(infill, deadline_ms=3_000, engine=status)
        assert slowness.reason == ""
    slowness.learn(infill, deadline_ms=3_000, engine=status)
    assert why in slowness.reason
    assert "the last 3 answers were cut off after 3000 ms" in slowness.reason


def test_answer_in_time_clears_the_reason_and_a_cancelled_one_does_not() -> None:
    shown: list[ServerStatus] = []
    board = StatusBoard(publish=shown.append, alarm=lambda _message: None, ask_engine=lambda: None)
    board.connection_changed(ConnectionStatus(state=ConnectionState.READY, percent=100))

    def kind_after(*infills: Infill) -> StatusKind:
        for infill in infills:
            board.answered(infill)
        board.show_current()
        return shown[-1].kind

    cancelled, in_time = (Infill(text="", finish=finish) for finish in (Finish.CANCELLED, Finish.EMPTY))
    assert kind_after(late(), cancelled, late(), cancelled) is StatusKind.READY
    assert kind_after(late(), cancelled) is StatusKind.SLOW
    assert kind_after(in_time) is StatusKind.READY
    assert kind_after(late(), late()) is StatusKind.READY
