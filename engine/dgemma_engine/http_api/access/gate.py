"""ASGI application -> the same one after all checks that concern no dialect: host, origin, key, type and size.

A request that passes has its whole body in one message. A request that does not is answered here, in the shape of the
dialect of its path. Nothing of a request is logged; a fault is logged by the name of its exception.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgemma_engine.http_api.access.visitors import is_known_host, is_known_origin
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.http_api.refusal import Refusal

_log = logging.getLogger(__name__)

_CORS_HEADERS = "authorization, content-type, x-api-key, api-key"
CALLER = "dgemma.caller"
"""Key of the ASGI scope for the caller: the name of a key, else the address of the client."""


class Gate:
    """The application, guarded by the checks.

    Args:
        app: the application.
        settings: names, keys and limits.
        render: returns the response to a refused request, by path.
        open_paths: paths that need no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: HttpSettings,
        *,
        render: Callable[[str, Refusal], Response],
        open_paths: Collection[str],
    ) -> None:
        self._app = app
        self._settings = settings
        self._render = render
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; hands the lifespan on and closes every web socket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        reply = _Reply(receive, send, has_unread_body=_has_body(scope))
        try:
            await self._answer(scope, receive, reply)
        except Refusal as refusal:
            await self._refuse(scope, receive, reply, refusal)
        except Exception as error:
            _log.error("a request failed with %s", type(error).__name__)
            fault = Refusal(status=500, message="The server failed on this request; its log names the kind of fault.")
            await self._refuse(scope, receive, reply, fault)

    async def _answer(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._settings.max_header_bytes:
            # The server limits only a head that comes in pieces.
            raise Refusal(status=431, message=f"The head is larger than {self._settings.max_header_bytes} bytes.")
        headers = _headers(scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in between may have taken the other length (request smuggling).
            raise Refusal(status=400, message="The request has Content-Length and Transfer-Encoding; send one of them.")
        host = headers.get("host", "")
        if not is_known_host(host, known=self._settings.hosts):
            raise Refusal(status=403, message="The Host header does not name this server; add it with --allow-host.")
        if origin := headers.get("origin", ""):
            if not is_known_origin(origin, host=host, known=self._settings.origins):
                raise Refusal(status=403, message="This page may not call the server; allow it with --allow-origin.")
            reply.origin = origin
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                preflight = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Allow-Headers": _CORS_HEADERS}
                await Response(status_code=204, headers=preflight)(scope, receive, reply)
                return
        scope[CALLER] = self._caller(scope, headers)
        if scope["method"] == "POST":
            _require_json(headers)
        body = await self._body(headers, reply.receive)
        receive = _replay(body, receive)
        await self._app(scope, receive, reply)

    def _caller(self, scope: Scope, headers: Mapping[str, str]) -> str:
        client = scope.get("client")
        address = client[0] if client else "socket"
        if not self._settings.keys:
            return address
        name = self._settings.keys.name_of(headers)
        if name is None and scope["path"] not in self._open_paths:
            raise Refusal(status=401, message="A key is needed: Authorization: Bearer KEY.")
        if name is None:
            return address
        if not (header := self._settings.user_header):
            return f"{name}@{address}"
        # The proxy's address does not identify the user.
        user = headers.get(header, "").strip()
        if not user and scope["path"] not in self._open_paths:
            raise Refusal(status=401, message=f"The header {header} is needed: the proxy names the user in it.")
        # Quoted, so that no two users get the same name: keys of documents begin with it.
        return f"{name} {quote(user, safe='')}"

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """Returns the whole body; the server's protocol ends a connection whose body does not come in time."""
        most = self._settings.max_body_bytes
        too_large = Refusal(status=413, message=f"The body is larger than {most} bytes.")
        declared = headers.get("content-length", "0")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > most):
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(status=400, message="The body ended early.")
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)

    async def _refuse(self, scope: Scope, receive: Receive, reply: _Reply, refusal: Refusal) -> None:
        if not reply.started:
            await self._render(scope["path"], refusal)(scope, receive, reply)


class _Reply:
    """The server's `send`; adds what a web page's browser needs to read the answer.

    An answer that comes before the whole body ends the connection, but not before the client had time to send the
    rest: a connection that is closed with bytes unread is reset, and its client may never see the answer.
    """

    def __init__(self, receive: Receive, send: Send, *, has_unread_body: bool) -> None:
        self._receive = receive
        self._send = send
        self._has_unread_body = has_unread_body
        self.origin = ""
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = [*message.get("headers", ()), (b"cache-control", b"no-store")]
            if self.origin:
                headers += [
                    (b"access-control-allow-origin", self.origin.encode("latin-1")),
                    (b"vary", b"Origin"),
                ]
            if self._has_unread_body:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self._has_unread_body and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            # The server's protocol ends a connection whose body does not come in time.
            while self._has_unread_body:
                await self.receive()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def receive(self) -> Message:
        """Returns the next part of the body."""
        message = await self._receive()
        self._has_unread_body = self._has_unread_body and message.get("more_body", False)
        return message


def _has_body(scope: Scope) -> bool:
    return any(
        (name == b"content-length" and value.strip(b"0")) or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )


def _headers(scope: Scope) -> dict[str, str]:
    """Returns the headers by name. Of one that comes twice neither counts: two readers may take different ones."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        headers[key] = "\0" if key in headers and key in _ONCE else value.decode("latin-1")
    return headers


_ONCE = {"host", "origin", "authorization", "content-type", "x-api-key", "api-key"}


def _require_json(headers: Mapping[str, str]) -> None:
    """Raises `Refusal` unless the body is JSON in UTF-8, which no web page can send without a CORS preflight."""
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if kind.strip().lower() != "application/json" or ("charset=" in charset and "charset=utf-8" not in charset):
        raise Refusal(status=415, message="The body must be JSON in UTF-8: Content-Type: application/json.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(status=415, message="The body must not be compressed.")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that gives the body once, then what comes after it: the disconnect."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
