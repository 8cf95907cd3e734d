"""Our own `POST /v1/infill`: the engine's `Context` as a body, its `Infill` as the answer, its drafts in a stream.

Events of a stream: `{"draft": {...}}` for each step that the client reads in time, and at last `{"answer": {...}}`, or
`{"error": {...}}` where the engine is lost before that. Texts for a document with `\\r\\n` have those line ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from dgemma_engine.http_api.completions.line_ends import is_windows, unix_context, windows_draft, windows_infill
from dgemma_engine.http_api.draft_stream import draft_events
from dgemma_engine.http_api.operation import Call, Operation
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import error_object, json_response, stream_response
from dgemma_engine.protocol.messages import Context, DocumentEdges, Extent, Infill, Snippet

_Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class InfillBody(Struct, kw_only=True):
    """The fields of the engine's `Context`, under the same names and with the same defaults, and `stream`."""

    prefix: str
    suffix: str
    document: str = ""
    path: str = ""
    language: str = ""
    snippets: tuple[Snippet, ...] = ()
    edits: tuple[Snippet, ...] = ()
    extent: Extent = Extent.LINE
    max_middle_tokens: Annotated[int, Meta(ge=1, le=4_096)] = 64
    deadline_ms: Annotated[float, Meta(ge=0, le=600_000)] = 1_000.0
    seed: _Seed = 0
    speculative: bool = False
    on_demand: bool = False
    insistent: bool = False
    least_column: Annotated[int, Meta(ge=-1, le=2**31)] = -1
    edges: DocumentEdges = msgspec.field(default_factory=DocumentEdges)
    stream: bool = False


class InfillDialect:
    """Our own API."""

    name = "dgemma"

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        return (
            Operation(
                method="POST",
                paths=("/v1/infill",),
                run=self._infill,
                summary="the text at a cursor, with candidates, scores, timings and drafts",
                body=InfillBody,
                answer=Infill,
            ),
        )

    def error(self, refusal: Refusal) -> Response:
        """Returns `{"error": {"message", "type", "code", "param"}}`; `code` is the status."""
        return error_object(refusal, code=refusal.status)

    async def _infill(self, call: Call) -> Response:
        body = call.read(InfillBody)
        document = (
            f"{call.caller}/{body.document}" if body.document else call.document_of(body.path, body.prefix, body.suffix)
        )
        try:
            context = _context(body, document, is_insistent=call.service.settings.insistent)
        except ValueError as error:
            # Our own checks name fields and numbers, and quote no text.
            raise Refusal(status=400, message=str(error).replace("self.", "")) from None
        is_crlf = is_windows(body.prefix, body.suffix)
        context = unix_context(context) if is_crlf else context
        if body.stream:
            return await stream_response(
                draft_events(
                    lambda on_draft: call.service.infill(context, call.caller, on_draft),
                    to_draft=lambda draft: {"draft": windows_draft(draft) if is_crlf else draft},
                    to_answer=lambda infill: {"answer": windows_infill(infill) if is_crlf else infill},
                )
            )
        infill = await call.service.infill(context, call.caller)
        return json_response(windows_infill(infill) if is_crlf else infill)


def _context(body: InfillBody, document: str, *, is_insistent: bool) -> Context:
    fields: dict[str, Any] = {name: getattr(body, name) for name in body.__struct_fields__ if name != "stream"}
    fields["document"] = document
    fields["insistent"] = body.insistent or is_insistent
    return Context(**fields)
