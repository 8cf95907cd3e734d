"""One path -> the operation that answers: by method, and by body where two dialects share the path.

A handler's task is cancelled when its client closes the connection: no client sends another sign that an answer is no
longer wanted, and an ASGI server would let a handler run to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dgemma_engine.http_api.access.gate import CALLER
from dgemma_engine.http_api.completions.completion_service import CompletionService
from dgemma_engine.http_api.json_bodies import decoded
from dgemma_engine.http_api.operation import Call, Dialect, Operation
from dgemma_engine.http_api.refusal import Refusal


class Endpoint:
    """The ASGI application of one path.

    Args:
        service: answers questions.
        found: the operations of the path, each with its dialect, in the order in which they may claim a body; the
            first shapes the errors of the gate.
    """

    def __init__(self, service: CompletionService, found: Sequence[tuple[Dialect, Operation]]) -> None:
        self._service = service
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        of_method = [one for one in self._found if one[1].method == method]
        if not of_method:
            allow = ", ".join(sorted({operation.method for _, operation in self._found}))
            raise Refusal(status=405, message=f"The path answers {allow} only.", allow=allow)
        body = await Request(scope, receive).body()
        dialect, operation = _claimed(of_method, body)
        call = Call(
            service=self._service,
            caller=scope[CALLER],
            path=scope["path"],
            parameters=scope["path_params"],
            body=body,
            invalid_status=operation.invalid_status,
        )
        try:
            response = await _unless_left(operation.run(call), receive)
        except Refusal as refusal:
            response = dialect.error(refusal)
        if response is not None:
            await response(scope, receive, send)


def _claimed(found: Sequence[tuple[Dialect, Operation]], body: bytes) -> tuple[Dialect, Operation]:
    """Returns the operation that a body is for: one that claims it, else the one that claims nothing."""
    if len(found) == 1:
        return found[0]
    fields = _fields(body)
    claimed = next((one for one in found if one[1].claims is not None and one[1].claims(fields)), None)
    return claimed or next((one for one in found if one[1].claims is None), found[-1])


def _fields(body: bytes) -> Mapping[str, msgspec.Raw]:
    try:
        return decoded(body, dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


async def _unless_left(work: Awaitable[Response], receive: Receive) -> Response | None:
    """Returns the result of some work; None once the client has left, after the work was cancelled."""
    working, leaving = asyncio.ensure_future(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
