"""Messages survive the socket unchanged; a field that does not fit is refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import (
    AdapterUse,
    Candidate,
    CandidateSource,
    Context,
    Draft,
    DraftSpan,
    Extent,
    Finish,
    Infill,
    Snippet,
)
from dgemma_engine.protocol.status_messages import EngineState, Progress, StageTimes, Status

CONTEXT = Context(
    document="file:///a.py",
    prefix="x = '🦀'\r\n\td",
    suffix="",
    path="a.py",
    language="python",
    snippets=(Snippet(path="b.py", text="y"),),
    edits=(Snippet(path="c.py", text="-x\n+y"),),
    extent=Extent.BLOCK,
    max_middle_tokens=7,
    deadline_ms=12.5,
    seed=2**63 - 1,
    drafts="1",
    speculative=True,
    folder="/w/\udcff",
)
DRAFT = Draft(
    request="1",
    step=2,
    text="é(\ud800",
    spans=(
        DraftSpan(text="é", confidence=0.75, settled=True),
        DraftSpan(text="(\ud800", confidence=0.0, settled=False),
    ),
)
QUERY = DefinitionsQuery(text="def é(): ...", names=("é", "f"), path="a.py", language="python")
DEFINITIONS = Definitions(texts={"é": "def é(): ..."})
INFILL = Infill(
    text="é",
    finish=Finish.STEP_LIMIT,
    score=0.25,
    steps=3,
    timings_ms={"total": 1.5},
    forwards=5,
    candidates=(
        Candidate(text="é", score=0.25, source=CandidateSource.SEED),
        Candidate(text="", score=0.0, source=CandidateSource.LEFT_TO_RIGHT),
    ),
    adapter=AdapterUse(root="/w", fault="off"),
)
PROGRESS = Progress(state=EngineState.LOADING, percent=40, message="reading")
STATUS = Status(
    state=EngineState.BUSY, percent=100, message="", model="m", model_path="/m", device="cpu", pid=1, version="0",
    uptime_s=2.0, memory_bytes=3, device_memory_bytes=0, clients=1, requests={"stable": 1}, denoising_steps=9,
    stages={"total": StageTimes(count=1, p50_ms=1.0, p95_ms=2.0)}, adapters={"/w": "", "/v": "off"},
)  # fmt: skip
MESSAGES = {type(message): message for message in (CONTEXT, QUERY, DEFINITIONS, DRAFT, INFILL, PROGRESS, STATUS)}

SPAN = DRAFT.spans[0].to_wire()
CANDIDATE = INFILL.candidates[0].to_wire()


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: type(message).__name__)
def test_message_survives_json(message: Any) -> None:
    assert type(message).from_wire(json.loads(json.dumps(message.to_wire()))) == message


def test_context_fills_in_defaults() -> None:
    context = Context.from_wire({"document": "d", "prefix": "p", "suffix": "s"})
    assert context == Context(document="d", prefix="p", suffix="s")
    assert context.drafts == ""


def test_infill_fills_in_defaults() -> None:
    infill = Infill.from_wire({"text": "x", "finish": "stable"})
    assert (infill.forwards, infill.candidates) == (0, ())


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (Context, {"document": 1}, "Context.document must be str, got int"),
        (Context, {"prefix": None}, "Context.prefix must be str, got NoneType"),
        (Context, {"seed": True}, "Context.seed must be int, got bool"),
        (Context, {"seed": 1.0}, "Context.seed must be int, got float"),
        (Context, {"seed": -1}, "seed=-1 must be between"),
        (Context, {"seed": 2**63}, "seed=9223372036854775808 must be between 0 and 2**63 - 1"),
        (Context, {"max_middle_tokens": 0}, "max_middle_tokens=0 must be between 1 and 4096"),
        (Context, {"max_middle_tokens": 4_097}, "max_middle_tokens=4097 must be between"),
        (Context, {"deadline_ms": -1}, "deadline_ms=-1 must be between"),
        (Context, {"deadline_ms": float("nan")}, "Context.deadline_ms must be a finite number"),
        (Context, {"deadline_ms": float("inf")}, "Context.deadline_ms must be a finite number"),
        (Context, {"drafts": 1}, "Context.drafts must be str, got int"),
        (Context, {"extent": "page"}, "Context.extent must be one of line, block, got 'page'"),
        (Context, {"snippets": "text"}, "Context.snippets must be a list, got str"),
        (Context, {"snippets": ["text"]}, "Context.snippets[0] must be a JSON object, got str"),
        (Context, {"snippets": [{"path": "p"}]}, "Context.snippets[0] lacks the fields: text"),
        (Context, {"edits": [{"text": "t"}]}, "Context.edits[0] lacks the fields: path"),
        (DefinitionsQuery, {"text": 1}, "DefinitionsQuery.text must be str, got int"),
        (DefinitionsQuery, {"names": "f"}, "DefinitionsQuery.names must be a list, got str"),
        (DefinitionsQuery, {"names": [1]}, "DefinitionsQuery.names[0] must be str, got int"),
        (Definitions, {"texts": []}, "Definitions.texts must be a JSON object, got list"),
        (Context, {"colour": 1}, "Context has unknown fields: colour"),
        (Draft, {"request": None}, "Draft.request must be str, got NoneType"),
        (Draft, {"step": -1}, "step=-1 must not be negative"),
        (Draft, {"steps_limit": -1}, "steps_limit=-1 must not be negative"),
        (Draft, {"text": "e("}, "Draft.text must be the texts of Draft.spans joined"),
        (Draft, {"spans": {}}, "Draft.spans must be a list, got dict"),
        (Draft, {"spans": [1]}, "Draft.spans[0] must be a JSON object, got int"),
        (Draft, {"spans": [{"text": "é"}]}, "Draft.spans[0] lacks the fields: confidence, settled"),
        (Draft, {"spans": [SPAN | {"confidence": 2}]}, "confidence=2 must be between 0 and 1"),
        (Draft, {"spans": [SPAN | {"confidence": float("nan")}]}, "Draft.spans[0].confidence must be a finite number"),
        (Draft, {"spans": [SPAN | {"settled": 1}]}, "Draft.spans[0].settled must be bool, got int"),
        (Infill, {"finish": "bored"}, "Infill.finish must be one of"),
        (Infill, {"score": 1.5}, "score=1.5 must be between 0 and 1"),
        (Infill, {"steps": -1}, "steps=-1 must not be negative"),
        (Infill, {"forwards": -1}, "forwards=-1 must not be negative"),
        (Infill, {"text": "", "candidates": [], "unlikely": True}, "unlikely=True needs a text"),
        (Infill, {"candidates": "é"}, "Infill.candidates must be a list, got str"),
        (Infill, {"candidates": [{"text": "é"}]}, "Infill.candidates[0] lacks the fields: score, source"),
        (Infill, {"candidates": [CANDIDATE | {"score": -0.1}]}, "score=-0.1 must be between 0 and 1"),
        (Infill, {"candidates": [CANDIDATE | {"num_tokens": -1}]}, "num_tokens=-1 must not be negative"),
        (Infill, {"candidates": [CANDIDATE | {"score": float("nan")}]}, "candidates[0].score must be a finite number"),
        (Infill, {"timings_ms": {"total": float("nan")}}, "Infill.timings_ms[total] must be a finite number"),
        (Infill, {"timings_ms": {"total": 10**400}}, "Infill.timings_ms[total] must be a finite number"),
        (Infill, {"steps": 10**30}, "Infill.steps must be an integer of 64 bits"),
        (
            Infill,
            {"candidates": [CANDIDATE | {"source": "luck"}]},
            "Infill.candidates[0].source must be one of diffusion, left_to_right, seed, got 'luck'",
        ),
        (Infill, {"text": "e"}, "Infill.text and Infill.covered must be those of the first of Infill.candidates"),
        (Infill, {"covered": 1}, "Infill.text and Infill.covered must be those of the first of Infill.candidates"),
        (Context, {"edges": {"num_before": 9_999}}, "self.edges.num_before=9999 must be between 0 and"),
        (Context, {"edges": {"num_after": -1}}, "self.edges.num_after=-1 must be between 0 and"),
        (Context, {"folder": "w"}, "folder='w' must be an absolute path"),
        (Context, {"folder": "/w\0"}, "must be an absolute path"),
        (Infill, {"adapter": {"fault": "off"}}, "fault='off' needs a root"),
        (Infill, {"adapter": "/w"}, "Infill.adapter must be a JSON object, got str"),
        (Status, {"adapters": {"/w": 1}}, "Status.adapters[/w] must be str, got int"),
        (Infill, {"timings_ms": []}, "Infill.timings_ms must be a JSON object, got list"),
        (Infill, {"timings_ms": {"total": "1"}}, "Infill.timings_ms[total] must be float, got str"),
        (Status, {"requests": {"stable": 1.5}}, "Status.requests[stable] must be int, got float"),
        (Progress, {"percent": 101}, "percent=101 must be between 0 and 100"),
        (Progress, {"state": "odd"}, "Progress.state must be one of"),
        (Status, {"pid": "1"}, "Status.pid must be int, got str"),
        (Status, {"stages": {"total": {"count": 1}}}, "Status.stages[total] lacks the fields: p50_ms, p95_ms"),
    ],
)
def test_from_wire_names_the_field_that_does_not_fit(kind: type, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind.from_wire(MESSAGES[kind].to_wire() | change)  # type: ignore[attr-defined]
    assert message in str(caught.value)


@pytest.mark.parametrize("wire", [None, [], "text", 3])
def test_from_wire_requires_an_object(wire: Any) -> None:
    with pytest.raises(ValueError, match="Context must be a JSON object"):
        Context.from_wire(wire)


def test_from_wire_names_missing_fields() -> None:
    with pytest.raises(ValueError, match="Context lacks the fields: prefix, suffix"):
        Context.from_wire({"document": "d"})


def test_context_is_not_both_speculative_and_on_demand() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        Context(document="a", prefix="", suffix="", speculative=True, on_demand=True)


def test_infill_without_text_may_have_candidates() -> None:
    silent = Infill(text="", finish=Finish.EMPTY, candidates=INFILL.candidates)
    assert Infill.from_wire(silent.to_wire()) == silent


def test_inconsistent_draft_is_refused_without_its_text() -> None:
    with pytest.raises(ValueError) as caught:
        Draft(request="1", step=1, text="TOP_SECRET", spans=())
    assert "TOP_SECRET" not in str(caught.value)
