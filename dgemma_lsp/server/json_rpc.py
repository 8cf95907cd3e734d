"""JSON-RPC over pygls: bodies in, handlers called, exactly one response to every request in every state.

A session is new until `initialize` is answered, then open until `shutdown` comes, then shut down; `exit` or the end of
the input ends it. Each override below stands in for pygls; upstream reports, of openlawlibrary/pygls:

- after `shutdown` requests stay unanswered, and responses are dropped: #605;
- a response to a request whose waiter was cancelled raises InvalidStateError: #621;
- no report that we know of: `shutdown` cancels futures in a dict that their callbacks shrink ("dictionary changed size
  during iteration"); requests before `initialize`, requests without `params` or with parameters that cannot be read,
  and results that cannot be written stay unanswered; a response that cannot be read leaves its waiter waiting; ids of
  the two sides share one dict; an object within `params` that has a key `jsonrpc` is taken for a message; futures of
  notifications are kept for good.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextvars import copy_context
from enum import Enum
from functools import partial
from typing import Any, cast

import attrs
from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInternalError,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcParseError,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import LanguageServerProtocol, lsp_method

from dgemma_lsp.server.decoding import Id, decoded, is_id, to_exception, to_objects
from dgemma_lsp.server.lenient_converter import why_unreadable

_log = logging.getLogger(__name__)

# Longest wait for cancelled requests, which usually end at once.
_END_TIMEOUT_S = 2.0


class SessionState(Enum):
    """The state of a session."""

    NEW = "new"
    OPEN = "open"
    SHUT_DOWN = "shut down"


class AnsweringProtocol(LanguageServerProtocol):
    """pygls's protocol that answers every request once.

    Attributes:
        state: the state of the session.
        ended: whether `exit` came: nothing is read after it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.state = SessionState.NEW
        self.ended = False
        self._running: dict[Id, Future[Any]] = {}
        self._answered = asyncio.Event()
        self._shutting_down: Id | None = None
        self._sent: dict[Id, tuple[Future[Any], type[Any] | None]] = {}

    def receive(self, body: bytes) -> None:
        """Handles one message; never raises.

        Args:
            body: JSON as it came, complete or not.
        """
        try:
            message, is_whole = decoded(body)
        except ValueError:
            self._refuse(None, JsonRpcParseError("the body is not JSON"))
            self.message_lost(None, None)
            return
        if not isinstance(message, dict):
            self._refuse(None, JsonRpcInvalidRequest("a message must be an object, and may not be a batch"))
            self.message_lost(None, None)
            return
        handle = self._dispatch if is_whole else self._refuse_deep
        try:
            # Each handler has its own context, which holds the id of the request.
            copy_context().run(handle, cast("dict[str, Any]", message))
        except Exception as error:
            _log.error("a message could not be handled (%s)", type(error).__name__)

    def message_lost(self, method: str | None, params: object) -> None:
        """Called with a message that could not be read or handled.

        Args:
            method: of the message; None where not even that is known.
            params: decoded JSON, of any form.
        """

    async def end(self) -> None:
        """Answers what is in flight: waits for a `shutdown`, and cancels every other request of both sides."""
        await self._end_requests(waits_for_shutdown=True)

    def cancel_with_request(self, task: asyncio.Task[Any]) -> None:
        """Cancels a task when the request that is being handled is cancelled; pygls lets a command run on."""
        if (msg_id := self.msg_id) is not None and (future := self._running.get(msg_id)) is not None:
            future.add_done_callback(lambda done: done.cancelled() and task.cancel())

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        """Opens the session."""
        result = yield from super().lsp_initialize(params)
        self.state = SessionState.OPEN
        return result

    @lsp_method(types.SHUTDOWN)
    def lsp_shutdown(self, *arguments: Any) -> Generator[Any, Any, None]:
        """Closes the session after all other requests in flight are answered."""
        if (handler := self.fm.features.get(types.SHUTDOWN)) is not None:
            yield handler, arguments, None
        yield self._end_requests, (), None
        self._shutdown = True

    @lsp_method(types.EXIT)
    def lsp_exit(self, *arguments: Any) -> Generator[Any, Any, None]:
        """Ends the session: the connection stops reading and calls `end`."""
        self.ended = True
        yield from ()

    def send_request(
        self, method: str, params: Any = None, callback: Callable[[Any], None] | None = None, msg_id: Id | None = None
    ) -> Future[Any]:
        """Sends a request as pygls does, but keeps its future apart from those of the editor's requests."""
        msg_id = str(uuid.uuid4()) if msg_id is None else msg_id
        future = super().send_request(method, params, callback, msg_id)
        self._sent[msg_id] = future, self._result_types.pop(msg_id, None)
        self._request_futures.pop(msg_id, None)
        future.add_done_callback(lambda _done: self._sent.pop(msg_id, None))
        return future

    def _dispatch(self, message: dict[str, Any]) -> None:
        method, is_request = message.get("method"), "id" in message
        if "method" not in message:
            if "result" in message or "error" in message or is_request:
                self._take_response(message)
            else:
                self._refuse(None, JsonRpcInvalidRequest("a message must have a method, or an id and a result"))
        elif not is_request or (message["id"] is None and self._notifies(method)):
            self._take_notification(method, message.get("params"))
        elif not is_id(message["id"]):
            self._refuse(None, JsonRpcInvalidRequest("the id of a request must be a whole number or a text"))
            self._lose(method, message)
        elif not isinstance(method, str):
            self._refuse(message["id"], JsonRpcInvalidRequest("the method of a request must be a text"))
        else:
            self._take_request(message["id"], method, message)

    def _take_request(self, msg_id: Id, method: str, message: dict[str, Any]) -> None:
        try:
            self._check_state(method)
            if msg_id in self._running:
                raise JsonRpcInvalidRequest("the id is that of a request which is not answered yet")
            handler = self._get_handler(method)
            params = self._read(method, message.get("params"), msg_id)
        except JsonRpcException as error:
            self._refuse(msg_id, error)
            self._lose(method, message)
            return
        if self._notifies(method):
            # Answered at once: what it starts may wait for the editor.
            self._take_notification(method, message.get("params"))
            self._send_data({"jsonrpc": self.VERSION, "id": msg_id, "result": None})
            return
        if method == types.SHUTDOWN:
            self.state, self._shutting_down = SessionState.SHUT_DOWN, msg_id
        self._ctx_msg_id.set(msg_id)
        key = str(uuid.uuid4())
        self._execute_handler(key, handler, partial(self._answer, msg_id=msg_id), (params,))
        if (future := self._request_futures.get(key)) is not None and not future.done():
            self._running[msg_id] = future

    def _refuse_deep(self, message: dict[str, Any]) -> None:
        method, msg_id, error = message.get("method"), message.get("id"), JsonRpcInvalidParams("nested too deeply")
        if method is None:
            self._take_response({"id": msg_id, "error": {"code": error.code, "message": error.message}})
        elif is_id(msg_id):
            self._refuse(msg_id, error)
        self._lose(method, message)

    def _lose(self, method: object, message: dict[str, Any]) -> None:
        """Reports a notification that came with an id, and so was refused as a request."""
        if self.state is SessionState.OPEN and isinstance(method, str) and self._notifies(method):
            self.message_lost(method, message.get("params"))

    def _notifies(self, method: object) -> bool:
        """Whether a method is one of notifications that this server handles."""
        known = {**self.fm.builtin_features, **self.fm.features}
        return isinstance(method, str) and method in known and _is_notification(self.get_message_type(method))

    def _check_state(self, method: str) -> None:
        if self.state is SessionState.NEW and method != types.INITIALIZE:
            raise JsonRpcServerNotInitialized("the first request must be initialize")
        if self.state is SessionState.SHUT_DOWN:
            raise JsonRpcInvalidRequest("the server is shut down; only exit may follow")
        if self.state is SessionState.OPEN and method == types.INITIALIZE:
            raise JsonRpcInvalidRequest("the server is initialized already")

    def _take_notification(self, method: object, params: object) -> None:
        if method == types.EXIT:
            self._handle_notification(types.EXIT, None)
        elif method == types.CANCEL_REQUEST:
            self._cancel(cast("dict[str, Any]", params).get("id") if isinstance(params, dict) else None)
        elif self.state is SessionState.OPEN and isinstance(method, str) and self._notifies(method):
            try:
                self._handle_notification(method, self._read(method, params))
            except JsonRpcException as error:
                _log.warning("ignored %s: %s", method, error.message)
                self.message_lost(method, params)

    def _take_response(self, message: dict[str, Any]) -> None:
        """Passes a response to its waiter; one that cannot be read becomes an error, so that no waiter is left."""
        msg_id = message.get("id")
        future, kind = self._sent.pop(msg_id, (None, None)) if is_id(msg_id) else (None, None)
        if future is None or future.done():
            return
        if message.get("error") is not None:
            future.set_exception(to_exception(message["error"]))
            return
        try:
            given = {"jsonrpc": self.VERSION, "id": msg_id, "result": message.get("result")}
            future.set_result(self._converter.structure(given, kind).result if kind else given["result"])
        except Exception as error:
            future.set_exception(JsonRpcInternalError(f"the response cannot be read ({why_unreadable(error)})"))

    def _read(self, method: str, params: object, msg_id: Id = 0) -> Any:
        """Returns parameters in the form of their method; JSON objects where that is not known."""
        try:
            if (kind := self.get_message_type(method)) is None:
                return to_objects(params)
            message = {"jsonrpc": self.VERSION, "id": msg_id, "method": method, "params": params}
            return self._converter.structure(message, kind).params
        except Exception as error:
            raise JsonRpcInvalidParams(f"{JsonRpcInvalidParams.MESSAGE}: {why_unreadable(error)}") from None

    def _execute_handler(self, msg_id: Id, *arguments: Any, **options: Any) -> None:
        super()._execute_handler(msg_id, *arguments, **options)
        if (future := self._request_futures.get(msg_id)) is not None:
            future.add_done_callback(lambda _done: self._request_futures.pop(msg_id, None))

    def _answer(self, future: Future[Any], *, msg_id: Id) -> None:
        self._running.pop(msg_id, None)
        self._send_handler_result(future, msg_id=msg_id)
        self._answered.set()

    def _refuse(self, msg_id: Id | None, error: JsonRpcException) -> None:
        wire = {"code": error.code, "message": error.message}
        self._send_data({"jsonrpc": self.VERSION, "id": msg_id, "error": wire})

    def _send_data(self, data: Any) -> None:
        """Writes a message; a response that cannot be written is an error instead."""
        if self.writer is None:
            return
        try:
            body = json.dumps(data, default=self._serialize_message)
        except Exception as error:
            _log.error("a message could not be written (%s)", type(error).__name__)
            if (msg_id := getattr(data, "id", None)) is not None and not hasattr(data, "method"):
                self._refuse(msg_id, JsonRpcInternalError("the result could not be written"))
            return
        self.writer.write(f"Content-Length: {len(body)}\r\n\r\n{body}".encode())

    def _cancel(self, msg_id: object) -> None:
        # An unknown id is of a request answered meanwhile. A shutdown cannot be cancelled.
        if is_id(msg_id) and msg_id != self._shutting_down and (future := self._running.get(msg_id)) is not None:
            future.cancel()

    async def _end_requests(self, *, waits_for_shutdown: bool = False) -> None:
        for future in [*(future for future, _ in self._sent.values()), *self._others().values()]:
            future.cancel()
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                while self._running if waits_for_shutdown else self._others():
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            _log.error("%d requests did not end in time", len(self._running))

    def _others(self) -> dict[Id, Future[Any]]:
        """Returns the requests in flight but `shutdown`."""
        return {msg_id: future for msg_id, future in self._running.items() if msg_id != self._shutting_down}


def _is_notification(kind: type[Any] | None) -> bool:  # pygls would run a request without an id too.
    return kind is not None and "id" not in attrs.fields_dict(kind)
