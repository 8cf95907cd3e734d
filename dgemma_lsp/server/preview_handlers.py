"""The request `dgemma/denoise`: a completion whose canvas the editor shows while it is denoised. Applies nothing.

`{textDocument: {uri, version?}, position, token}` is answered with `{items: [InlineCompletionItem], finish, steps,
elapsedMs, message}`; `message` says in one sentence why nothing was asked, and is empty otherwise. Before that, and
never after it, come notifications `dgemma/draft` `{token, step, stepsLimit, elapsedMs, spans: [{text, confidence,
settled}]}`. A newer request for the same document ends the older with RequestCancelled, as `$/cancelRequest` does.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dgemma_engine.protocol.messages import Draft
from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from dgemma_lsp.completion.preview import Preview
from dgemma_lsp.documents.store import HAS_CHANGED, NOT_OPEN
from dgemma_lsp.request import Channel, Trigger
from dgemma_lsp.server import conversions
from dgemma_lsp.server.fill_conversions import field, to_place, to_version

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

METHOD = "dgemma/denoise"
DRAFT = "dgemma/draft"

_FORM = f"{METHOD} takes {{textDocument: {{uri, version?}}, position: {{line, character}}, token: string}}"


def register(server: DgemmaServer) -> None:
    """Registers the handler."""
    server.feature(METHOD)(_denoise)


def _question(params: object) -> tuple[str, int | None, types.Position, str]:
    """Returns uri and version of the document (None for the open one), the cursor, and the token of the drafts.

    Raises:
        JsonRpcInvalidParams: something is missing or of another type.
    """
    try:
        document, position = field(params, "textDocument"), field(params, "position")
        uri, version = field(document, "uri"), to_version(field(document, "version", None))
        (line, character), token = to_place(position, "position"), field(params, "token")
    except ValueError:
        raise JsonRpcInvalidParams(_FORM) from None
    if not (isinstance(uri, str) and isinstance(token, str)):
        raise JsonRpcInvalidParams(_FORM)
    return uri, version, types.Position(line=line, character=character), token


async def _denoise(ls: DgemmaServer, params: object) -> dict[str, Any]:
    since_s = time.monotonic()
    uri, version, position, token = _question(params)

    def elapsed_ms() -> float:
        return (time.monotonic() - since_s) * 1_000

    def tell(draft: Draft) -> None:
        spans = [asdict(span) for span in draft.spans]
        news = {"token": token, "step": draft.step, "stepsLimit": draft.steps_limit, "spans": spans}
        ls.protocol.notify(DRAFT, news | {"elapsedMs": elapsed_ms()})

    document = ls.session.documents.get(uri)
    if document is None:
        preview = Preview(message=NOT_OPEN)
    elif version not in {None, document.version}:
        preview = Preview(message=HAS_CHANGED)
    else:
        request = ls.request_at(document, position, Trigger.INVOKED, Channel.PREVIEW)
        preview = await ls.session.preview(request, tell)
    items: list[types.InlineCompletionItem] = []
    if document is not None:
        items = [
            conversions.to_inline_item(completion, document.lines, ls.encoding, accepted=None)
            for completion in preview.completions
        ]
    return {
        "items": items,
        "finish": preview.finish.value,
        "steps": preview.steps,
        "elapsedMs": elapsed_ms(),
        "message": preview.message,
    }
