"""Runs the application under uvicorn until a signal: one socket, TLS, limits; logs nothing of a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn
from starlette.types import ASGIApp

from dgemma_engine.errors import PortInUse, WrongUsage
from dgemma_engine.http_api.access.transfer_protocol import transfer_protocol
from dgemma_engine.http_api.http_settings import BindAddress, HttpSettings

_KEEP_ALIVE_S = 30
_END_S = 2
_BACKLOG = 128


class HttpServer:
    """A server that listens from the moment it is made, so that its port is known.

    Args:
        app: answers.
        settings: address, TLS and limits.

    Raises:
        PortInUse: another program listens on the address.
        WrongUsage: the address cannot be listened on, or certificate and key cannot be used.
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
            # A header that anyone can send must not say who asks.
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
            config.load()
        except OSError as error:
            self._socket.close()
            reason = error.strerror or type(error).__name__
            raise WrongUsage(f"--tls-cert and --tls-key cannot be used ({reason})") from None
        scheme = "http" if tls is None else "https"
        self._server = _Server(config)
        self.url = f"{scheme}://{settings.bind.url_host}:{self.port}"
        """What clients are told as the base of all paths."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._socket.getsockname()[1]

    def stop(self) -> None:
        """Lets `serve` end; safe in a handler of a signal."""
        self._server.should_exit = True

    async def serve(self) -> None:
        """Serves until `stop`."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
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
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves signals to the caller: uvicorn would end the process before the engine's connection is closed."""
        yield


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
