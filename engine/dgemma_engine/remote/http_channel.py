"""Bytes to an engine elsewhere and back, over connections that stay open. Follows no redirect and keeps no cookie."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

# No stub names the second; `proxy_bypass` looks names up in DNS on Windows, which may take long.
from urllib.request import getproxies, proxy_bypass_environment  # pyright: ignore[reportAttributeAccessIssue]

import httpx2

from dgemma_engine.errors import OutOfReach
from dgemma_engine.protocol.remote_messages import SESSION_HEADER
from dgemma_engine.remote import fault_sentences
from dgemma_engine.remote.remote_location import RemoteLocation

CONNECT_S = 5.0
_HANDSHAKE_S = 2.0
_TIMEOUT = httpx2.Timeout(None, connect=CONNECT_S).as_dict()
# Less than the 30 s after which `dgemma-engine serve` closes an idle connection.
_KEPT_S = 25.0
_MAX_CONNECTIONS, _MAX_IDLE = 32, 4
_MAX_ANSWER_BYTES = 64 * 2**20
# The last two are of a port or name of a proxy that no connection can have.
_NO_CONNECTION = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    OverflowError,
    ExceptionGroup,
)
_EVENT_STREAM, _JSON = "text/event-stream", "application/json"


class Broken(Exception):
    """The connection ended before the whole answer had come; the question can be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer.

    Attributes:
        status: of HTTP.
        retry_after_s: seconds that the other side asks to be left alone; 0 where it does not.
        body: decoded JSON; None where it is something else.
    """

    status: int
    retry_after_s: float
    body: Any


class HttpChannel:
    """Connections to one engine.

    Args:
        location: where it is.
        wall_clock: seconds that go on while the machine sleeps.

    Attributes:
        place: host and port, for the user.
        session: names this window; a cluster routes its requests to the engine that has its documents.
        num_open: requests under way, each on a connection of its own.

    Raises:
        OutOfReach: the settings cannot be used.
    """

    def __init__(self, location: RemoteLocation, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._url = url = location.parse_url()
        self.place = url.place
        self.session = uuid.uuid4().hex
        self._wall_clock = wall_clock
        self._used_s = wall_clock()
        self.num_open = 0
        self._base, self._urls = url.base.rstrip("/"), dict[str, httpx2.URL]()
        self._headers = {
            "User-Agent": "dgemma-lsp",
            SESSION_HEADER: self.session,
            "Accept": f"{_JSON}, {_EVENT_STREAM}",
            "Accept-Encoding": "identity",
        }
        if key := location.read_key():
            self._headers["Authorization"] = f"Bearer {key}"
        certificates = location.certificates() if url.scheme == "https" else False
        # A proxy of the environment must not see what is meant for this machine.
        is_bypassed = url.is_loopback or bool(proxy_bypass_environment(url.host))
        proxies = {} if is_bypassed else getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all") or ""
        self._is_proxied = bool(proxy)
        # Without a client object, which would spend time of each key on redirects and cookies that are not wanted.
        self._make = lambda: httpx2.AsyncHTTPTransport(
            verify=certificates,
            limits=httpx2.Limits(
                max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_IDLE, keepalive_expiry=_KEPT_S
            ),
            proxy=(proxy if "://" in proxy else f"http://{proxy}") if proxy else None,
        )
        try:
            self._transport = self._make()
        except (httpx2.InvalidURL, ValueError, ImportError):
            raise OutOfReach(fault_sentences.wrong_proxy(self.place)) from None

    @property
    def idle_s(self) -> float:
        """Seconds since a connection was used last."""
        return abs(self._wall_clock() - self._used_s)

    def no_answer(self) -> str:
        """Returns the sentence, for the status, that the engine does not answer."""
        return fault_sentences.no_answer(self.place, is_proxied=self._is_proxied)

    async def get(self, path: str) -> Reply:
        """Asks without a body; see `post`."""
        return await self._whole("GET", path, None)

    async def post(self, path: str, body: bytes) -> Reply:
        """Sends JSON and returns the whole answer.

        Raises:
            Broken: the connection ended before that.
            OutOfReach: no connection can be made.
        """
        return await self._whole("POST", path, body)

    async def events(self, path: str, body: bytes) -> AsyncGenerator[Reply]:
        """Sends JSON and yields server-sent events as they come; an answer that is no stream is yielded alone.

        Raises:
            Broken: the connection ended before the stream did.
            OutOfReach: no connection can be made.
        """
        async with self._response("POST", path, body) as response:
            if not response.headers.get("content-type", "").startswith(_EVENT_STREAM):
                yield await _read(response)
                return
            async for line in _lines(response):
                if line.startswith(b"data:"):
                    yield Reply(status=response.status_code, retry_after_s=0, body=_decoded(line[5:]))

    async def is_tls(self) -> bool:
        """Whether the port that plain HTTP was sent to speaks TLS. Sends it a handshake and nothing else."""
        if self._url.scheme == "https" or self._is_proxied:
            return False
        # Nothing secret is sent over it.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                _, writer = await asyncio.open_connection(self._url.host, self._url.port or 80, ssl=context)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    async def close(self) -> None:
        """Ends every connection; what is under way breaks."""
        await self._transport.aclose()

    async def _whole(self, method: str, path: str, body: bytes | None) -> Reply:
        async with self._response(method, path, body) as response:
            return await _read(response)

    @asynccontextmanager
    async def _response(self, method: str, path: str, body: bytes | None) -> AsyncGenerator[httpx2.Response]:
        if self.idle_s > _KEPT_S and not self.num_open:
            # The machine may have slept: connections that look open may be dead.
            before, self._transport = self._transport, self._make()
            self._used_s = self._wall_clock()
            await before.aclose()
        self._used_s = self._wall_clock()
        self.num_open += 1
        try:
            response = await self._transport.handle_async_request(self._request(method, path, body))
            try:
                yield response
            finally:
                await response.aclose()
        except _NO_CONNECTION as error:
            raise OutOfReach(fault_sentences.of_connecting(error, self.place, is_proxied=self._is_proxied)) from None
        except (httpx2.TransportError, httpx2.DecodingError, httpx2.StreamError, RuntimeError) as error:
            raise Broken(type(error).__name__) from None
        finally:
            self.num_open -= 1
            self._used_s = self._wall_clock()

    def _request(self, method: str, path: str, body: bytes | None) -> httpx2.Request:
        if (url := self._urls.get(path)) is None:
            url = self._urls[path] = httpx2.URL(self._base + path)
        headers = self._headers if body is None else self._headers | {"Content-Type": _JSON}
        return httpx2.Request(method, url, headers=headers, content=body, extensions={"timeout": _TIMEOUT})


async def _read(response: httpx2.Response) -> Reply:
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > _MAX_ANSWER_BYTES:
            raise Broken("too long")
    is_json = response.headers.get("content-type", "").startswith(_JSON)
    retry_after = response.headers.get("retry-after", "")
    return Reply(
        status=response.status_code,
        retry_after_s=float(retry_after) if re.fullmatch(r"[0-9]{1,5}", retry_after) else 0.0,
        body=_decoded(bytes(content)) if is_json else None,
    )


async def _lines(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """Yields whole lines as they come; text after the last line end is dropped."""
    rest = bytearray()
    async for part in response.aiter_bytes():
        rest += part
        if b"\n" in part:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield bytes(line)
        if len(rest) > _MAX_ANSWER_BYTES:
            raise Broken("too long")


def _decoded(content: bytes) -> Any:
    """Returns JSON; raises `Broken` if it is incomplete."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Broken("half an answer") from None
