"""The ASGI application that a replica gives to Ray once; it delegates to the one with the current limits."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class ReplicaApp:
    """An ASGI application.

    Args:
        app: answers until another one is set.

    Attributes:
        app: answers the next request; one that is under way stays with the application before.
        num_under_way: requests that are not answered yet.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.num_under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or the server's messages of start and end."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        self.num_under_way += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.num_under_way -= 1


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
