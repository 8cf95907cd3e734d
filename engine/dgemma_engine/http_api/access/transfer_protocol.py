"""uvicorn's HTTP protocol with time limits for both directions, a limit of connections, and errors as JSON.

uvicorn has none of them: a client that sends a byte a minute, or that reads nothing, holds a connection without end.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import cast

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from dgemma_engine.http_api.access.joined_writes import JoinedWrites
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.http_api.refusal import Refusal

_RECEIVING = (h11.IDLE, h11.SEND_BODY)
_BUSY_S = 1


def transfer_protocol(settings: HttpSettings) -> type[H11Protocol]:
    """Returns the class of the protocol.

    Args:
        settings: seconds for a request to arrive and for an answer to be read, and the number of connections.
    """

    class TransferProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(cast("asyncio.Transport", JoinedWrites(transport, self.loop)))
            if len(self.connections) > settings.max_connections:
                message = "Too many connections are open; ask again later."
                self._end(Refusal(status=503, message=message, retry_after_s=_BUSY_S))
            else:
                self._deadline = self.loop.call_later(settings.receive_s, self._late)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._stop_unread()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state not in _RECEIVING:
                self._stop_waiting()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(settings.receive_s, self._late)

        def eof_received(self) -> None:
            # A client that has closed its own side only reads why it gets no answer.
            if self._is_arriving and not self._is_answering:
                self._end(Refusal(status=400, message="The request ended early."))

        def on_response_complete(self) -> None:
            super().on_response_complete()
            # The next request may have begun to arrive together with the one that was answered.
            if self._deadline is None and not self.transport.is_closing() and self._is_arriving:
                self._deadline = self.loop.call_later(settings.receive_s, self._late)

        def send_400_response(self, msg: str) -> None:
            del msg
            self._stop_waiting()
            if self._is_answering:
                self.transport.close()
            else:
                self._end(Refusal(status=400, message="This is no HTTP request, or its head is too large."))

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(settings.send_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_unread()

        def _stop_unread(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        @property
        def _is_answering(self) -> bool:
            # None before the first request, whatever the annotation says.
            cycle = cast("RequestResponseCycle | None", self.cycle)
            return cycle is not None and cycle.response_started and not cycle.response_complete

        @property
        def _is_arriving(self) -> bool:
            state = self.conn.their_state
            return state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _late(self) -> None:
            self._deadline = None
            cycle = cast("RequestResponseCycle | None", self.cycle)
            is_answered = cycle is not None and cycle.response_complete
            if self._is_answering or (is_answered and not self._is_arriving):
                # Refused before its body came, or between two requests.
                self.transport.close()
            else:
                self._end(Refusal(status=408, message="The request did not arrive in time."))

        def _end(self, refusal: Refusal) -> None:
            status = refusal.status
            error = {"message": refusal.message, "type": refusal.kind, "code": status, "param": None}
            body = msgspec.json.encode({"error": error})
            headers = {"Content-Type": "application/json", "Content-Length": f"{len(body)}", "Connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | refusal.headers).items())
            self.transport.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode() + body)
            self.transport.close()

    return TransferProtocol
