"""The real HTTP server, and a `RemoteEngine` connected to it through a network whose bytes a test can change."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dgemma_engine.errors import OutOfReach
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.messages import Context
from dgemma_engine.protocol.status_messages import Progress
from dgemma_engine.remote.connect import connect_remote
from dgemma_engine.remote.remote_engine import RemoteEngine
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, RunningServer, running_server


def _spoiled_network() -> ModuleType:
    """Imports the network of `make bench-remote` by its path, since its folder is not a package."""
    path = Path(__file__).parents[3] / "engine/bench/http_api/spoiled_network.py"
    spec = importlib.util.spec_from_file_location("spoiled_network", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


network_to: Any = _spoiled_network().network_to


@dataclass
class Elsewhere:
    """An engine, its HTTP server, the network to it and the client."""

    engine: AnsweringEngine
    server: RunningServer
    network: Any
    remote: RemoteEngine
    progress: list[Progress]
    lost: list[OutOfReach]


@asynccontextmanager
async def elsewhere(
    engine: AnsweringEngine | None = None, settings: HttpSettings = FREE_PORT, **location: Any
) -> AsyncIterator[Elsewhere]:
    """Yields a client that is connected through a network."""
    async with running_server(engine, settings) as server, network_to(server.port) as network:
        progress: list[Progress] = []
        network.sent = []
        place = RemoteLocation(url=f"http://127.0.0.1:{network.port}", **location)
        lost: list[OutOfReach] = []
        remote = await connect_remote(place, on_progress=progress.append, on_closed=lost.append)
        try:
            yield Elsewhere(server.engine, server, network, remote, progress, lost)
        finally:
            await remote.close()


def question(prefix: str = "x = ", document: str = "file:///a.py", **other: Any) -> Context:
    return Context(document=document, prefix=prefix, suffix="\n", deadline_ms=5_000, **other)
