"""The request `dgemma/denoise`: an answer whose canvas the editor watches settle. Nothing of it is applied here.

`{textDocument: {uri, version?}, position, token}` is answered with `{items: [InlineCompletionItem], finish, steps,
elapsedMs, message}`; `message` says in one sentence why nothing was asked, and is empty otherwise. Before that, and
never after it, come notifications `dgemma/draft` `{token, step, stepsLimit, elapsedMs, spans: [{text, confidence,
settled}]}`. A newer request for the same document ends the older with RequestCancelled, as `$/cancelRequest` does.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from dgemma_engine.protocol.messages import Draft
from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from dgemma_lsp.completion.preview import Preview
from dgemma_lsp.request import Channel, Trigger
from dgemma_lsp.server import conversions

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

METHOD = "dgemma/denoise"
DRAFT = "dgemma/draft"

_FORM = f"{METHOD} takes {{textDocument: {{uri, version?}}, position: {{line, character}}, token: string}}"


def register(server: DgemmaServer) -> None:
    """Lets a server answer the request."""
    server.feature(METHOD)(_denoise)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """The request's parameters.

    Attributes:
        uri: names the document.
        version: of the document that the editor means; None takes the one that is open.
        position: the cursor.
        token: what the drafts are sent under.
    """

    uri: str
    version: int | None
    position: types.Position
    token: str

    @classmethod
    def read(cls, params: object) -> Self:
        """Reads what pygls makes of parameters that it does not know: objects with the JSON's keys.

        Raises:
            JsonRpcInvalidParams: something is missing or of another type.
        """
        document, position = getattr(params, "textDocument", None), getattr(params, "position", None)
        uri, version = getattr(document, "uri", None), getattr(document, "version", None)
        line, character = getattr(position, "line", None), getattr(position, "character", None)
        token = getattr(params, "token", None)
        if not (isinstance(uri, str) and isinstance(token, str) and isinstance(version, int | None)):
            raise JsonRpcInvalidParams(_FORM)
        if not (isinstance(line, int) and isinstance(character, int) and min(line, character) >= 0):
            raise JsonRpcInvalidParams(_FORM)
        return cls(uri=uri, version=version, position=types.Position(line=line, character=character), token=token)


async def _denoise(ls: DgemmaServer, params: object) -> dict[str, Any]:
    question, since_s = _Question.read(params), time.monotonic()

    def elapsed_ms() -> float:
        return (time.monotonic() - since_s) * 1_000

    def tell(draft: Draft) -> None:
        spans = [asdict(span) for span in draft.spans]
        news = {"token": question.token, "step": draft.step, "stepsLimit": draft.steps_limit, "spans": spans}
        ls.protocol.notify(DRAFT, news | {"elapsedMs": elapsed_ms()})

    document = ls.session.documents.get(question.uri)
    if document is None:
        preview = Preview(
            message="this document is not open, or out of step with the editor; close it and open it again"
        )
    elif question.version not in {None, document.version}:
        preview = Preview(message="the document has changed since it was asked about; ask again")
    else:
        request = ls.request_at(document, question.position, Trigger.INVOKED, Channel.PREVIEW)
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
