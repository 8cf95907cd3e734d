"""Requests to an ASGI application in this process: what a proxy in front of a replica sends it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp


@dataclass
class Asked:
    """The response as far as it has been received."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: ASGIApp, path: str, body: dict[str, Any] | None = None, *, leaving: asyncio.Event | None = None, **headers: str
) -> Asked:
    """Sends one request; its client disconnects once `leaving` is set."""
    data = b"" if body is None else json.dumps(body).encode()
    coming = [{"type": "http.request", "body": data, "more_body": False}]
    asked, left = Asked(), leaving or asyncio.Event()

    async def receive() -> dict[str, Any]:
        if coming:
            return coming.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            asked.status = message["status"]
            asked.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            asked.body += message.get("body", b"")

    sent = {"host": "127.0.0.1", "content-type": "application/json", "content-length": f"{len(data)}"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return asked
