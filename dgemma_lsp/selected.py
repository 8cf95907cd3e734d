"""The entry that is selected in the editor's completion menu: an answer has to extend it.

Pure. The engine is asked about the text as it would be with the entry accepted; the answer replaces what the entry
would, and begins with it.
"""

from __future__ import annotations

from dataclasses import replace

from dgemma_lsp.request import Request


def as_if_accepted(request: Request) -> Request:
    """Returns the question about the text in which the selected entry stands; the request itself where none is."""
    selected = request.selected
    if selected is None:
        return request
    return replace(
        request,
        text=request.text[: selected.start] + selected.text + request.text[selected.end :],
        offset=selected.start + len(selected.text),
        selected=None,
    )
