"""A client that sends whatever bytes a test chooses to a real server, and keeps every message that comes back."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from dgemma_lsp.server.app import DgemmaServer, build_server
from dgemma_lsp.server.serving import serve_io
from dgemma_lsp.server.transport.stdio import open_input
from tests.lsp.editor import URI
from tests.lsp.fake_engine import FakeConnector
from tests.lsp.waiting import until

# A model that is always there, so that no message says that one is missing.
TINY = {"engine": {"model": "tiny"}}

Message = dict[str, Any]


def framed(body: bytes, *, length: int | None = None, name: str = "Content-Length") -> bytes:
    """Returns a body with its header; `length` makes the header wrong."""
    return f"{name}: {len(body) if length is None else length}\r\n\r\n".encode() + body


class RawClient:
    """One connection to a server.

    Attributes:
        received: every message of the server, in order.
        server: the server, where it runs in this process.
        replies: by method, the response (`result` or `error`) to the server's own requests; others stay unanswered.
    """

    def __init__(self, reader: asyncio.StreamReader, write: Callable[[bytes], None]) -> None:
        self._reader = reader
        self._num_requests = 0
        self.write = write
        self.received: list[Message] = []
        self.replies: dict[str, Message] = {}
        self.exit_code: Callable[[], Awaitable[int]]
        self.server: DgemmaServer

    def send(self, message: Message, **header: Any) -> None:
        self.write(framed(json.dumps({"jsonrpc": "2.0"} | message).encode(), **header))

    def notify(self, method: str, **params: Any) -> None:
        self.send({"method": method, "params": params})

    def begin(self, method: str, *, params: Any = None) -> int:
        """Sends a request, without `params` where they are None; returns its id."""
        self._num_requests += 1
        message = {"id": self._num_requests, "method": method}
        self.send(message if params is None else message | {"params": params})
        return self._num_requests

    async def request(self, method: str, params: Any = None) -> Message:
        """Returns the response to a request."""
        return await self.response(self.begin(method, params=params))

    async def response(self, request: int | str) -> Message:
        # A process of its own may have to start first.
        await until(lambda: bool(self.responses(request)), timeout_s=60)
        (response,) = self.responses(request)
        return response

    def responses(self, request: int | str | None) -> list[Message]:
        return [one for one in self.received if "method" not in one and one["id"] == request]

    def sent(self, method: str) -> list[Message]:
        """The server's requests and notifications of one method."""
        return [one for one in self.received if one.get("method") == method]

    async def initialize(self, **params: Any) -> Message:
        whole = {"processId": None, "rootUri": None, "capabilities": {}, "initializationOptions": TINY} | params
        response = await self.request("initialize", whole)
        self.send({"method": "initialized", "params": {}})
        return response

    def open(self, text: str, *, uri: str = URI, version: int = 1) -> None:
        item = {"uri": uri, "languageId": "python", "version": version, "text": text}
        self.notify("textDocument/didOpen", textDocument=item)

    async def ask(self, line: int, character: int, *, uri: str = URI) -> Any:
        """Returns the answer to an explicit request: items, or the error's code."""
        response = await self.request("textDocument/inlineCompletion", question(line, character, uri=uri))
        return response["result"] if "result" in response else response["error"]["code"]

    async def lives(self) -> bool:
        """Whether the server answers a request in a new document, given an engine that answers every request."""
        self.open("alive = ", uri="file:///w/alive.py")
        return len(await self.ask(0, 8, uri="file:///w/alive.py")) == 1

    async def read(self) -> None:
        """Keeps messages until the server ends, and answers those that `replies` names."""
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                header = await self._reader.readuntil(b"\r\n\r\n")
                length = int(header.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                message = json.loads(await self._reader.readexactly(length))
                self.received.append(message)
                if "id" in message and (reply := self.replies.get(message.get("method", ""))) is not None:
                    self.send({"id": message["id"]} | reply)


def question(line: int, character: int, *, uri: str = URI) -> Message:
    position = {"line": line, "character": character}
    return {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": 1}}


@asynccontextmanager
async def raw_client(record: Path, *, answers: dict[str, str] | None = None) -> AsyncGenerator[RawClient]:
    """A server on two pipes in this process, and a client that has sent nothing.

    At the end the pipe is closed, and the server has to end by itself.
    """

    def note(event: str) -> None:
        with record.open("a", encoding="utf-8") as file:
            file.write(event + "\n")

    connector = FakeConnector(answers={"": "1"} if answers is None else answers, record=note)
    server = build_server(lambda _: connector.connect, environ={"HOME": str(record.parent)})
    (from_client, to_server), (from_server, to_client) = os.pipe(), os.pipe()
    with os.fdopen(from_client, "rb") as stdin, os.fdopen(to_client, "wb") as stdout:
        serving = asyncio.create_task(serve_io(server, stdin, stdout))
        answers_pipe = os.fdopen(from_server, "rb")
        client = RawClient(await open_input(answers_pipe, stdout), lambda data: _write(to_server, data))
        reading = asyncio.create_task(client.read())
        client.exit_code = partial(_exit_code, serving, server)
        client.server = server
        try:
            yield client
        finally:
            os.close(to_server)
            await asyncio.wait_for(serving, 20)
    await reading


@asynccontextmanager
async def raw_client_of(*command: str) -> AsyncGenerator[RawClient]:
    """A server in a process of its own, and a client that has sent nothing; the process is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    client = RawClient(process.stdout, process.stdin.write)
    client.exit_code = process.wait
    reading = asyncio.create_task(client.read())
    try:
        yield client
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


def events(record: Path) -> list[str]:
    """Returns the events that the fake engine has recorded."""
    return record.read_text(encoding="utf-8").splitlines() if record.exists() else []


def _write(descriptor: int, data: bytes) -> None:
    # The other end is read by the loop that runs this: no more than a pipe holds may be written at a time.
    assert len(data) < 60_000
    os.write(descriptor, data)


async def _exit_code(serving: asyncio.Task[None], server: DgemmaServer) -> int:
    await asyncio.shield(serving)
    return 0 if server.shut_down else 1
