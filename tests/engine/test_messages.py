"""What crosses the socket comes back equal, and what does not fit is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dgemma_engine.messages import (
    Context,
    EngineState,
    Extent,
    Finish,
    Infill,
    Progress,
    Snippet,
    StageTimes,
    Status,
)

CONTEXT = Context(
    document="file:///a.py",
    prefix="x = '🦀'\r\n\td",
    suffix="",
    path="a.py",
    language="python",
    snippets=(Snippet(path="b.py", text="y"),),
    extent=Extent.BLOCK,
    max_middle_tokens=7,
    deadline_ms=12.5,
    seed=2**63 - 1,
)
INFILL = Infill(text="é", finish=Finish.STEP_LIMIT, score=0.25, steps=3, timings_ms={"total": 1.5})
PROGRESS = Progress(state=EngineState.LOADING, percent=40, message="reading")
STATUS = Status(
    state=EngineState.BUSY, percent=100, message="", model="m", model_path="/m", device="cpu", pid=1, version="0",
    uptime_s=2.0, memory_bytes=3, device_memory_bytes=0, clients=1, requests={"stable": 1}, denoising_steps=9,
    stages={"total": StageTimes(count=1, p50_ms=1.0, p95_ms=2.0)},
)  # fmt: skip
MESSAGES = {type(message): message for message in (CONTEXT, INFILL, PROGRESS, STATUS)}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: type(message).__name__)
def test_message_survives_json(message: Any) -> None:
    assert type(message).from_wire(json.loads(json.dumps(message.to_wire()))) == message


def test_context_fills_in_what_is_left_out() -> None:
    context = Context.from_wire({"document": "d", "prefix": "p", "suffix": "s"})
    assert context == Context(document="d", prefix="p", suffix="s")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (Context, {"document": 1}, "Context.document must be str, got int"),
        (Context, {"prefix": None}, "Context.prefix must be str, got NoneType"),
        (Context, {"seed": True}, "Context.seed must be int, got bool"),
        (Context, {"seed": 1.0}, "Context.seed must be int, got float"),
        (Context, {"seed": -1}, "seed=-1 must be between"),
        (Context, {"max_middle_tokens": 0}, "max_middle_tokens=0 must be between 1 and 4096"),
        (Context, {"max_middle_tokens": 4_097}, "max_middle_tokens=4097 must be between"),
        (Context, {"deadline_ms": -1}, "deadline_ms=-1 must be between"),
        (Context, {"deadline_ms": float("nan")}, "deadline_ms=nan must be between"),
        (Context, {"extent": "page"}, "Context.extent must be one of line, block, got 'page'"),
        (Context, {"snippets": "text"}, "Context.snippets must be a list, got str"),
        (Context, {"snippets": ["text"]}, "Snippet must be a JSON object, got str"),
        (Context, {"snippets": [{"path": "p"}]}, "Snippet lacks the fields: text"),
        (Context, {"colour": 1}, "Context has unknown fields: colour"),
        (Infill, {"finish": "bored"}, "Infill.finish must be one of"),
        (Infill, {"score": 1.5}, "score=1.5 must be between 0 and 1"),
        (Infill, {"steps": -1}, "steps=-1 must not be negative"),
        (Infill, {"timings_ms": []}, "Infill.timings_ms must be dict"),
        (Progress, {"percent": 101}, "percent=101 must be between 0 and 100"),
        (Progress, {"state": "odd"}, "Progress.state must be one of"),
        (Status, {"pid": "1"}, "Status.pid must be int, got str"),
        (Status, {"stages": {"total": {"count": 1}}}, "StageTimes lacks the fields: p50_ms, p95_ms"),
    ],
)
def test_from_wire_names_what_does_not_fit(kind: type, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind.from_wire(MESSAGES[kind].to_wire() | change)  # type: ignore[attr-defined]
    assert message in str(caught.value)


@pytest.mark.parametrize("wire", [None, [], "text", 3])
def test_from_wire_wants_an_object(wire: Any) -> None:
    with pytest.raises(ValueError, match="Context must be a JSON object"):
        Context.from_wire(wire)


def test_from_wire_names_missing_fields() -> None:
    with pytest.raises(ValueError, match="Context lacks the fields: prefix, suffix"):
        Context.from_wire({"document": "d"})
