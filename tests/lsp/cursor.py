"""Texts with the cursor inline as `|`."""

from __future__ import annotations

from dgemma_lsp.request import Request


def split_cursor(marked: str) -> tuple[str, int]:
    """Returns the text without its one `|`, and where that stood."""
    assert marked.count("|") == 1, f"exactly one cursor, please: {marked!r}"
    offset = marked.index("|")
    return marked[:offset] + marked[offset + 1 :], offset


def request_at(marked: str, *, uri: str = "file:///w/a.py", version: int = 1) -> Request:
    """Returns the request at the cursor in `marked`."""
    text, offset = split_cursor(marked)
    return Request(uri=uri, version=version, text=text, offset=offset, path="a.py", language="python")
