"""`dgemma-engine serve` in a process of its own, and a client of it with almost no overhead."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit


class Connection:
    """One connection, which stays open between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncGenerator[Self]:
        """Gives a connection to the server of a URL."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            yield cls(reader, writer, parts.netloc)
        finally:
            writer.close()

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Returns status and body of the answer."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        return int(answer.split(b" ", 2)[1]), await self._reader.readexactly(length)


@asynccontextmanager
async def running_server(runtime: str) -> AsyncGenerator[tuple[str, int]]:
    """Gives URL and process id of `dgemma-engine serve` for the engine `tiny` in a runtime folder."""
    command = [sys.executable, "-P", "-m", "dgemma_engine", "serve", "--model", "tiny", "--http", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"DGEMMA_RUNTIME_DIR": runtime}, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().removeprefix("listening on ").strip()
        async with Connection.open(url) as connection:
            while (await connection.post("/infill", {"input_prefix": "x = ", "input_suffix": ""}))[0] != 200:
                await asyncio.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        await process.wait()
