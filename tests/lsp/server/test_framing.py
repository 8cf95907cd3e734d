"""Bodies out of a stream of bytes: in pieces, with headers of every spelling, and after wrong lengths."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgemma_lsp.server.transport.framing import Framing
from tests.lsp.raw_client import framed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
BODIES = st.builds(
    lambda value, indent, ascii: json.dumps({"m": value}, indent=indent, ensure_ascii=ascii).encode(errors="replace"),
    JSON | st.just("\r\nContent-Length: 7\r\n\r\n{}"),
    st.sampled_from([None, 1]),
    st.booleans(),
)
NAMES = st.sampled_from(["Content-Length", "content-length", "CONTENT-LENGTH", "Content-length"])


def bodies(*pieces: bytes) -> list[bytes]:
    framing = Framing()
    return [body for piece in pieces for body in framing.feed(piece)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.tuples(BODIES, NAMES), max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
def test_bodies_come_out_whole_however_the_stream_is_cut(messages: list[tuple[bytes, str]], places: list[int]):
    stream = b"".join(framed(body, name=name) for body, name in messages)
    assert bodies(*cut(stream, places)) == [body for body, _ in messages]


@given(BODIES, BODIES, st.integers(0, 400), st.lists(st.integers(0, 10_000), max_size=6))
def test_one_wrong_length_costs_one_message_at_most(wrong: bytes, right: bytes, length: int, places: list[int]):
    stream = framed(wrong, length=length) + framed(right) + framed(right)
    found = bodies(*cut(stream, places))
    assert found[-2:] == [right, right]
    assert len(found) <= 3
    if length >= len(wrong):
        assert found[0] == wrong


@pytest.mark.parametrize("other", [b"X-Content-Length: 3", b"Content-Type: x", b"X: " + b" " * 300])
def test_other_headers_give_no_length(other: bytes):
    assert bodies(b"Content-Length: 2\r\n" + other + b"\r\n\r\n{}") == [b"{}"]


def test_line_ends_between_values_are_part_of_the_body():
    body = b'{"a": [' + b"1,\r\n\r\n" * 1_000 + b"1]}"
    assert bodies(framed(body), framed(body)) == [body, body]


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 2\r\n\r\n",
        b"content-length:2\r\n\r\n",
        b"CONTENT-LENGTH :  2 \r\n\r\n",
        b"Content-Length: 2\n\n",
        b"Content-Length: 02\r\nContent-Type: application/vscode-jsonrpc; charset=utf8\r\n\r\n",
        b"Content-Type: application/vscode-jsonrpc\r\nContent-Length: 2\r\n\r\n",
        b"\r\n\r\nContent-Length: 2\r\n\r\n",
        b"a line of the shell that started us\nContent-Length: 2\r\n\r\n",
        b"x" * 100_000 + b"Content-Length: 2\r\n\r\n",
        b"Content-Length: -1\r\n\r\nContent-Length: 2\r\n\r\n",
        b"Content-Length: two\r\n\r\nContent-Length: 2\r\n\r\n",
        b"Content-Length: 0\r\n\r\nContent-Length: 2\r\n\r\n",
        b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\nContent-Length: 2\r\n\r\n",
        b"Content-Length: 7\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_header(header: bytes):
    assert bodies(header + b"{}" + framed(b'{"x": 1}')) == [b"{}", b'{"x": 1}']


def test_length_too_large_by_any_number_of_bytes_loses_nothing():
    following = framed(b"{}", name="content-length")
    for extra in range(1, len(following) + 30):
        assert bodies(framed(b'{"x": {}}', length=9 + extra) + following + following) == [b'{"x": {}}', b"{}", b"{}"]


def test_text_of_a_header_in_a_body_is_text():
    body = json.dumps({"text": "a\r\nContent-Length: 5\r\n\r\nb"}).encode()
    assert bodies(framed(body)) == [body]


def test_bytes_that_are_no_header_are_dropped():
    framing = Framing()
    for _ in range(100):
        assert not list(framing.feed(b"x" * 10_000))
    assert len(framing._bytes) < 1_000  # pyright: ignore[reportPrivateUsage]
