from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding
from dgemma_lsp.documents.store import Document, Documents, Edit

characters = st.sampled_from(["a", "é", "😋", "\n", "\r\n", "\r", "\x0c", "\u2028", " "])
texts = st.lists(characters, max_size=20).map("".join)


def opened(text: str) -> Documents:
    documents = Documents()
    documents.open(Document(uri="u", version=1, language="python", text=text))
    return documents


def check(text: str, edit: Edit, expected: str) -> None:
    documents = opened(text)
    end = documents.change("u", 2, [edit], PositionEncoding.UTF16)
    assert end is not None and expected[:end].endswith(edit.text)
    document = documents.get("u")
    assert document is not None
    assert (document.text, document.version) == (expected, 2)


@given(texts, texts, st.sampled_from(list(PositionEncoding)), st.data())
def test_edit_replaces_what_the_editor_sees(text: str, new: str, encoding: PositionEncoding, data: st.DataObject):
    lines = LineIndex(text)
    ends = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    positions = [lines.position(end, encoding) for end in ends]
    start, end = (lines.offset(*position, encoding) for position in positions)
    documents = opened(text)
    documents.change("u", 2, [Edit(span=(positions[0], positions[1]), text=new)], encoding)
    document = documents.get("u")
    assert document is not None
    assert document.text == text[:start] + new + text[end:]


def test_edit_after_a_form_feed_hits_its_line():
    check("a\x0cb\nc", Edit(span=((1, 0), (1, 1)), text="d"), "a\x0cb\nd")


def test_edit_past_the_end_of_the_last_line_appends():
    check("ab", Edit(span=((0, 9), (0, 9)), text="c"), "abc")


def test_edit_past_the_end_of_the_document_appends():
    check("ab\n", Edit(span=((5, 0), (6, 0)), text="c"), "ab\nc")


def test_edit_with_its_end_before_its_start_is_turned_round():
    check("abcd", Edit(span=((0, 3), (0, 1)), text="x"), "axd")


def test_edit_of_the_whole_text():
    check("ab", Edit(span=None, text="x"), "x")


def test_edits_apply_one_after_the_other():
    documents = opened("ab")
    edits = [Edit(span=((0, 0), (0, 0)), text="\n"), Edit(span=((1, 0), (1, 1)), text="x")]
    documents.change("u", 2, edits, PositionEncoding.UTF16)
    document = documents.get("u")
    assert document is not None
    assert document.text == "\nxb"


def test_edit_of_a_document_that_is_not_open_is_dropped():
    assert not Documents().change("u", 2, [Edit(span=None, text="x")], PositionEncoding.UTF16)


def test_closing_twice_is_no_fault():
    documents = opened("ab")
    documents.close("u")
    documents.close("u")
    assert documents.get("u") is None


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///" + "x" * 16_384, "its URI is longer than 16384 characters"),
        ("file:///" + "a/" * 2_048, "its URI has more than 2048 slashes"),
    ],
)
def test_document_of_an_impossible_uri_is_left_out_with_the_reason(
    uri: str, reason: str, caplog: pytest.LogCaptureFixture
):
    documents = Documents()
    documents.open(Document(uri=uri, version=1, language="", text=""))
    assert documents.all() == ()
    assert caplog.messages == [f"a document is not completed: {reason}"]
