"""Runs the application under uvicorn until a signal: one socket, TLS, limits; logs nothing of a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable, Generator
from typing import Any, NoReturn, cast

import uvicorn
from starlette.types import ASGIApp

from dgemma_engine.errors import PortInUse, WrongUsage
from dgemma_engine.http_api.access.transfer_protocol import transfer_protocol
from dgemma_engine.http_api.http_settings import BindAddress, HttpSettings, TlsFiles

_KEEP_ALIVE_S = 30
_END_S = 2
_BACKLOG = 128
_QUIET_S = 60.0

_log = logging.getLogger(__name__)


class HttpServer:
    """A server that listens from the moment it is made, so that its port is known.

    Args:
        app: answers.
        settings: address, TLS and limits.

    Raises:
        PortInUse: another program listens on the address.
        WrongUsage: the server cannot listen on the address, or certificate and key cannot be used.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._socket = _listening(settings.bind)
        tls = settings.tls
        config = uvicorn.Config(
            app,
            http=transfer_protocol(settings),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            # A header that anyone can send must not name the caller.
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_END_S,
            h11_max_incomplete_event_size=settings.max_header_bytes,
            ssl_certfile=None if tls is None else tls.cert,
            ssl_keyfile=None if tls is None else tls.key,
        )
        # Its messages may have tracebacks with a request in them.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        try:
            if tls is not None:
                _require_plain_key(tls)
            config.load()
        except WrongUsage:
            self._socket.close()
            raise
        except OSError as error:
            self._socket.close()
            reason = error.strerror or type(error).__name__
            raise WrongUsage(f"--tls-cert and --tls-key cannot be used ({reason})") from None
        scheme = "http" if tls is None else "https"
        self._server = _Server(config, settings)
        self.url = f"{scheme}://{settings.bind.url_host}:{self.port}"
        """The base URL for clients."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._socket.getsockname()[1]

    def stop(self) -> None:
        """Lets `serve` end; safe in a handler of a signal."""
        self._server.should_exit = True

    async def serve(self) -> None:
        """Serves until `stop`."""
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        loop.set_exception_handler(_LoopFaults(handler))
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            loop.set_exception_handler(handler)
            self._socket.close()

    async def serve_until_signal(self, on_listening: Callable[[str], None]) -> None:
        """Serves until SIGTERM or SIGINT.

        Args:
            on_listening: called with the URL.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        on_listening(self.url)
        await self.serve()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, settings: HttpSettings) -> None:
        super().__init__(config)
        self._settings = settings
        self._handshakes: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens as uvicorn does, with a deadline for the handshake of TLS: no protocol sees a connection before."""
        loop = asyncio.get_running_loop()
        self.servers: list[asyncio.Server] = []
        for listener in sockets or ():
            server = await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=self.config.ssl,
                backlog=_BACKLOG,
                ssl_handshake_timeout=None if self.config.ssl is None else self._settings.receive_s,
            )
            self.servers.append(server)
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        """Returns the protocol of a new connection; closes one above the limit of handshakes under way.

        asyncio accepts each connection in a task of its own that lasts until the handshake has ended.
        """
        if self.config.ssl is not None and (accepting := asyncio.current_task()) is not None:
            self._handshakes.add(accepting)
            accepting.add_done_callback(self._handshakes.discard)
            if len(self._handshakes) > self._settings.max_connections:
                accepting.cancel()
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state={})

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves signals to the caller: uvicorn would end the process before the engine's connection is closed."""
        yield


class _LoopFaults:
    """The event loop's handler of exceptions; logs at most once a minute that no connection can be accepted.

    asyncio itself logs a traceback for every place in the backlog, again every second.
    """

    def __init__(self, others: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None) -> None:
        self._others = others
        self._quiet_until = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not str(context.get("message", "")).startswith("socket.accept()"):
            if self._others is None:
                loop.default_exception_handler(context)
            else:
                self._others(loop, context)
        elif (now := time.monotonic()) >= self._quiet_until:
            self._quiet_until = now + _QUIET_S
            error = context.get("exception")
            reason = (error.strerror if isinstance(error, OSError) else None) or "no reason given"
            _log.warning("no connection can be accepted now: %s", reason)


def _require_plain_key(tls: TlsFiles) -> None:
    """Raises `WrongUsage` if the key needs a pass phrase: OpenSSL would ask the terminal for it, and wait."""

    def refuse() -> NoReturn:
        raise WrongUsage(f"The key {tls.key} is encrypted; give one without a pass phrase with --tls-key.")

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, refuse)


def _listening(bind: BindAddress) -> socket.socket:
    host = "127.0.0.1" if bind.host == "localhost" else bind.host
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    # asyncio sends small pieces at once only on a socket that names TCP; head and body would lie 40 ms apart.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, bind.port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        is_taken = error.errno == errno.EADDRINUSE
        reason = "the port is in use" if is_taken else (error.strerror or "no reason given")
        kind = PortInUse if is_taken else WrongUsage
        place = f"{bind.url_host}:{bind.port}"
        raise kind(f"Cannot listen on {place}: {reason}. Choose another with --http.") from None
    return listener
