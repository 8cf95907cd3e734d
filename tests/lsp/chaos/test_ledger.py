"""The ledger of the random client reports missing and wrong answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lsp.chaos.ledger import CANCELLED, RESULT, Asked, Ledger, Report
from tests.lsp.chaos.wire import BadFrame, FrameReader, Header, bad_frame, encode, frame


def ledger_with(*ids: int | str) -> Ledger:
    ledger = Ledger(Report())
    for msg_id in ids:
        asked = Asked(
            msg_id=msg_id,
            kind="ask",
            message="question",
            legal=frozenset({RESULT, CANCELLED}),
            fits=lambda result: isinstance(result, list),
            waits_for_editor=msg_id == "waits",
        )
        ledger.expect(asked)
    return ledger


@pytest.mark.parametrize("answer", [{"result": []}, {"error": {"code": CANCELLED, "message": ""}}])
def test_one_right_answer_is_no_fault(answer: dict[str, Any]):
    ledger = ledger_with(1)
    ledger.answered({"id": 1} | answer)
    ledger.give_up(editor_owes=False)
    assert ledger.faults == []


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([], "unanswered"),
        ([{"id": 1, "result": []}] * 2, "answered_twice"),
        ([{"id": 1, "result": None}], "wrong_result"),
        ([{"id": 1, "result": [], "error": None}], "malformed"),
        ([{"id": 1, "error": {"code": -32603, "message": ""}}], "wrong_code"),
        ([{"id": 1, "result": []}, {"id": "1", "result": []}], "unknown_id"),
        ([{"id": 1, "result": []}, {"id": None, "result": []}], "malformed"),
    ],
)
def test_wrong_answers_are_faults(answers: list[dict[str, Any]], fault: str):
    ledger = ledger_with(1)
    for answer in answers:
        ledger.answered(answer)
    ledger.give_up(editor_owes=False)
    assert any(found.startswith(fault) for found in ledger.faults)


def test_outstanding_leaves_out_requests_that_wait_for_an_answer_of_the_editor():
    ledger = ledger_with(1, "waits")
    assert [asked.msg_id for asked in ledger.outstanding(editor_owes=True)] == [1]
    assert [asked.msg_id for asked in ledger.outstanding()] == [1, "waits"]


@pytest.mark.parametrize("header", list(Header))
def test_frames_are_read_in_pieces_of_any_size(header: Header):
    reader, read = FrameReader(), []
    for byte in frame(encode({"a": "é"}), header) * 2:
        read += reader.feed(bytes([byte]))
    assert read == [{"a": "é"}] * 2
    assert reader.rest == b""


def test_bytes_that_are_no_frame_are_an_error():
    with pytest.raises(ValueError, match="without a length"):
        FrameReader().feed(b"Traceback\r\n\r\n")


def test_frame_with_a_wrong_length_is_followed_by_a_message_that_may_be_lost():
    for kind in (BadFrame.LONG, BadFrame.SHORT, BadFrame.NEGATIVE):
        assert bad_frame(kind).endswith(b"}}")
        assert b"$/chaos/lost" in bad_frame(kind)
