"""An engine without a model on the real socket, in a thread of its own: answers at once, dies and starts on demand.

Words in the cursor's line: SLOW works until cancelled, LATER answers after 30 ms, FAULT with an error, GARBAGE with a
result that cannot be read, DIE ends the connection. Every other request is answered with the same text.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from dgemma_engine.errors import EngineFault
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.json_rpc import Peer
from dgemma_engine.protocol.definition_messages import DEFINITIONS, Definitions
from dgemma_engine.protocol.handshake import HELLO, PROTOCOL, Hello
from dgemma_engine.protocol.messages import DRAFT, INFILL, Draft, DraftSpan, Finish, Infill
from dgemma_engine.protocol.status_messages import PROGRESS, STATUS, EngineState, Progress

from tests.lsp.engine_process import STATUS_NOW

TEXT = "alpha + beta"
_T = TypeVar("_T")


class ChaosEngine:
    """Made by `chaos_engine`."""

    def __init__(self, location: EngineLocation, loop: asyncio.AbstractEventLoop) -> None:
        self._location = location
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._peers: set[Peer] = set()

    def start(self) -> None:
        """Starts to listen, unless the engine listens already."""
        self._call(self._start())

    def die(self) -> None:
        """Ends every connection and removes the socket."""
        self._call(self._die())

    async def _start(self) -> None:
        if self._server is None:
            self._location.prepare()
            self._server = await asyncio.start_unix_server(self._connected, path=str(self._location.socket))

    async def _die(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._location.socket.unlink(missing_ok=True)
        for peer in list(self._peers):
            peer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def infill(params: Any) -> Any:
            return await self._infill(params, peer)

        async def status(_params: Any) -> dict[str, Any]:
            return STATUS_NOW.to_wire()

        async def definitions(_params: Any) -> dict[str, Any]:
            return Definitions(texts={}).to_wire()

        peer = Peer(reader, writer, requests={INFILL: infill, STATUS: status, DEFINITIONS: definitions})
        self._peers.add(peer)
        peer.notify(HELLO, Hello(protocol=PROTOCOL).to_wire())
        peer.notify(PROGRESS, Progress(state=EngineState.READY, percent=100).to_wire())
        try:
            await peer.run()
        finally:
            self._peers.discard(peer)

    async def _infill(self, params: dict[str, Any], peer: Peer) -> Any:
        line = str(params.get("prefix", "")).rpartition("\n")[2]
        if drafts := params.get("drafts"):
            spans = (DraftSpan(text=TEXT, confidence=0.5, settled=False),)
            peer.notify(DRAFT, Draft(request=drafts, step=1, text=TEXT, spans=spans, steps_limit=4).to_wire())
        if "SLOW" in line:
            await asyncio.sleep(60)
        if "LATER" in line:
            await asyncio.sleep(0.03)
        if "FAULT" in line:
            raise EngineFault("out of memory; use a smaller model")
        if "GARBAGE" in line:
            return {"text": 7}
        if "DIE" in line:
            peer.close()
        return Infill(text=TEXT, finish=Finish.STABLE, score=0.5, steps=3, timings_ms={"total": 1.0}).to_wire()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextmanager
def chaos_engine(location: EngineLocation) -> Generator[ChaosEngine]:
    """Gives an engine that listens at `location` for as long as the block lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="chaos-engine", daemon=True)
    thread.start()
    engine = ChaosEngine(location, loop)
    try:
        engine.start()
        yield engine
    finally:
        engine.die()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
