"""One JSON-RPC 2.0 connection over a pair of streams: pygls's protocol, extended to answer every message.

Turns methods and JSON-ready parameters into bytes and back. Adds to pygls what a socket between two of our processes
needs: malformed messages are answered, faults become one-line errors, the end of the connection ends what is pending,
and no message body reaches a log. Knows nothing of engines.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from pygls.exceptions import JsonRpcException, JsonRpcInternalError, JsonRpcInvalidRequest, JsonRpcParseError
from pygls.io_ import run_async
from pygls.protocol import JsonRPCProtocol, default_converter
from pygls.protocol.json_rpc import JsonRPCNotification, JsonRPCRequestMessage, JsonRPCResponseMessage
from pygls.server import JsonRPCServer

from dgemma_engine.errors import EngineError

_log = logging.getLogger(__name__)

STREAM_LIMIT_BYTES = 1 << 20
"""Buffer of a stream; a message may be larger, a header line may not."""

REQUEST_FAILED = -32803
"""LSP's code for a request that was understood and failed."""

_CANCEL = "$/cancelRequest"

Handler = Callable[[Any], Awaitable[Any]]


def keep_bodies_out_of_logs() -> None:
    """Raises pygls's loggers to WARNING: below, it logs every message body."""
    for name in ("pygls", "pygls.protocol.json_rpc", "pygls.server", "pygls.io_"):
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < logging.WARNING:
            logger.setLevel(logging.WARNING)


class Peer:
    """One end of a connection. Belongs to the event loop it was made on.

    Args:
        reader: where messages come from.
        writer: where messages go; closed with the connection.
        requests: coroutine functions that handle requests, by method; each returns the JSON-ready result, or raises.
        notifications: handlers of notifications by method.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        requests: Mapping[str, Handler] | None = None,
        notifications: Mapping[str, Callable[[Any], None]] | None = None,
    ) -> None:
        keep_bodies_out_of_logs()
        self._reader = reader
        self._writer = writer
        self._writer.transport.set_write_buffer_limits(high=0)  # `drain` then waits for the last byte.
        self._ended = threading.Event()
        protocol = _Endpoint(_Protocol, default_converter).protocol
        assert isinstance(protocol, _Protocol)
        self._protocol = protocol
        self._protocol.set_writer(_Sink(writer))
        for method, handler in (requests or {}).items():
            self._protocol.fm.add_builtin_feature(method, handler)
        for method, listener in (notifications or {}).items():
            self._protocol.fm.add_builtin_feature(method, listener)

    @property
    def ended(self) -> bool:
        """Whether the connection is over."""
        return self._ended.is_set()

    async def run(self) -> None:
        """Reads until the connection ends, then cancels the handlers that run and fails the requests that wait."""
        try:
            # A reset, an end in mid-message, or a header line without end: each is the end of this connection.
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                await run_async(
                    stop_event=self._ended,
                    reader=self._reader,
                    protocol=self._protocol,
                    logger=_log,
                    error_handler=self._protocol.reject_unreadable,
                )
        finally:
            self._ended.set()
            self._protocol.abandon()
            self._writer.transport.abort()

    def notify(self, method: str, params: Any) -> None:
        """Sends a notification; does nothing when the connection is over."""
        if not self._ended.is_set():
            self._protocol.notify(method, params)

    async def request(self, method: str, params: Any) -> Any:
        """Sends a request and returns its result. Cancelling the caller cancels the request at the other end.

        Raises:
            ConnectionError: the connection is over, or ended before the answer.
            JsonRpcException: the other end answered with an error.
        """
        if self._ended.is_set():
            raise ConnectionResetError("the connection is closed")
        msg_id = str(uuid.uuid4())
        try:
            return await asyncio.wrap_future(self._protocol.send_request(method, params, msg_id=msg_id))
        except asyncio.CancelledError:
            self.notify(_CANCEL, {"id": msg_id})
            raise

    async def settle(self, timeout_s: float) -> None:
        """Waits until the handlers that run have answered and the answers have left, at most `timeout_s` for each."""
        if tasks := self._protocol.running():
            await asyncio.wait(tasks, timeout=timeout_s)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()

    def close(self) -> None:
        """Ends the connection; what has not left yet (see `settle`) is lost. `run` returns soon after."""
        self._ended.set()
        self._writer.transport.abort()


def _fault(error: BaseException) -> JsonRpcException:
    """Returns the JSON-RPC error of one line that answers a request whose handler has raised `error`."""
    if isinstance(error, JsonRpcException):
        return error
    if isinstance(error, EngineError):
        return JsonRpcException(" ".join(str(error).split()), REQUEST_FAILED)
    # The message of an arbitrary exception may quote the user's text; its place cannot.
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a handler failed with %s\n%s", type(error).__name__, place)
    return JsonRpcInternalError(f"the engine failed ({type(error).__name__})")


class _Sink:
    """A writer for pygls; drops messages to a connection that is over."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    def close(self) -> None:
        self._writer.close()


class _Protocol(JsonRPCProtocol):
    """pygls's protocol with plain dicts as parameters, every message answered, and quiet errors."""

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Turns a decoded object into a message; returns any other value as it is."""
        if data.get("jsonrpc") != self.VERSION:
            return data
        if isinstance(method := data.get("method"), str):
            params = data.get("params")
            if "id" in data:
                return JsonRPCRequestMessage(id=data["id"], method=method, jsonrpc=self.VERSION, params=params)
            if method == _CANCEL:
                params = SimpleNamespace(id=params.get("id") if isinstance(params, dict) else None)
            return JsonRPCNotification(method=method, jsonrpc=self.VERSION, params=params)
        if isinstance(error := data.get("error"), dict) and "id" in data:
            fault = SimpleNamespace(
                code=error.get("code", JsonRpcException.CODE), message=error.get("message"), data=error.get("data")
            )
            return SimpleNamespace(id=data["id"], jsonrpc=self.VERSION, error=fault)
        if "result" in data and "id" in data:
            return JsonRPCResponseMessage(id=data["id"], jsonrpc=self.VERSION, result=data["result"])
        return data

    def handle_message(self, message: Any) -> None:
        """Dispatches a message; answers any other value with an error."""
        msg_id: object = getattr(message, "id", "")
        if not hasattr(message, "jsonrpc"):
            self._reject(JsonRpcInvalidRequest("this is no JSON-RPC 2.0 message"))
        elif isinstance(msg_id, bool) or not isinstance(msg_id, str | int):
            if hasattr(message, "method"):  # Answering an answer would never end.
                self._reject(JsonRpcInvalidRequest("a request's id must be a string or an integer"))
        else:
            super().handle_message(message)

    def reject_unreadable(self, error: Exception, source: object) -> None:
        """Answers bytes that are not JSON."""
        self._reject(JsonRpcParseError(f"the message cannot be read ({type(error).__name__})"))

    def running(self) -> list[asyncio.Future[Any]]:
        """Returns the handlers that run."""
        return [future for future in self._request_futures.values() if asyncio.isfuture(future)]

    def abandon(self) -> None:
        """Cancels the handlers that run and fails the requests that wait for an answer."""
        for future in list(self._request_futures.values()):
            if asyncio.isfuture(future):
                future.cancel()
            elif not future.done():
                future.set_exception(ConnectionResetError("the connection ended before the answer"))

    def _reject(self, error: JsonRpcException) -> None:
        fault = {"code": error.code, "message": error.message}
        self._send_data({"jsonrpc": self.VERSION, "id": None, "error": fault})

    def _send_handler_result(self, future: Future[Any], *, msg_id: str | int) -> None:
        # pygls logs a traceback, with a message that may quote the user's text, for each error of a handler.
        error = None if future.cancelled() else future.exception()
        if error is None:
            super()._send_handler_result(future, msg_id=msg_id)
        else:
            self._request_futures.pop(msg_id, None)
            self._send_response(msg_id, error=_fault(error).to_response_error())

    def _handle_response(self, msg_id: str | int, result: Any | None = None, error: Any | None = None) -> None:
        # pygls stores a type for every request that it sends, and removes it only when it reads the answer itself.
        self._result_types.pop(msg_id, None)
        future = self._request_futures.get(msg_id)
        if future is None or future.done():  # An answer that crossed our cancellation on its way.
            self._request_futures.pop(msg_id, None)
        else:
            super()._handle_response(msg_id, result, error)

    def _handle_cancel_notification(self, msg_id: Any) -> None:
        # An unknown id is a cancellation that crossed our answer on its way.
        if isinstance(msg_id, str | int) and msg_id in self._request_futures:
            super()._handle_cancel_notification(msg_id)


class _Endpoint(JsonRPCServer):
    """The server object that pygls needs for a protocol."""

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Logs a fault by its kind: its message may quote a body."""
        _log.warning("a message could not be handled (%s)", type(error).__name__)
