"""Settings -> a connection to the engine. The only place that decides between attaching, starting and asking elsewhere.

The socket's client is imported only where it is used: it needs modules that Windows does not have.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from dgemma_engine.engine_client.infill_source import Connect
from dgemma_engine.errors import EngineUnavailable, NoEngine, WrongUsage
from dgemma_engine.model_store import catalogue
from dgemma_engine.model_store.choice import ModelChoice, choose_model
from dgemma_engine.protocol.status_messages import Progress, Status

from dgemma_lsp.settings.settings import Settings

if TYPE_CHECKING:
    from dgemma_engine.engine_client.infill_source import InfillSource
    from dgemma_engine.ipc.client import EngineLocation
    from dgemma_engine.remote.remote_location import RemoteLocation


NOT_ON_WINDOWS = "the engine does not run on Windows itself; open the folder in WSL"
_ON_WINDOWS = f"{NOT_ON_WINDOWS}, or set engine.url to an engine on another machine"


def chosen_model(settings: Settings) -> ModelChoice:
    """Returns which model runs with these settings; another takes the place of the default one until that is fetched.

    An engine on another machine has a model of its own, which no setting here chooses; on Windows there is no other.

    Args:
        settings: where the engine is, and the model.
    """
    if settings.engine_url or sys.platform == "win32":
        return ModelChoice(runs="")
    is_default = settings.engine_model == catalogue.DEFAULT_MODEL
    return choose_model(None if is_default else settings.engine_model, os.environ)


def engine_host(settings: Settings) -> str:
    """Returns host and port of the engine on another machine, for the status; empty where there is none.

    Args:
        settings: where the engine is.
    """
    if not settings.engine_url:
        return ""
    from dgemma_engine.remote.engine_url import EngineUrl

    try:
        return EngineUrl.parse(settings.engine_url).place
    except ValueError:
        # The connection reports what is wrong with it.
        return ""


def first_request(settings: Settings) -> str:
    """Returns what the first request does, as a sentence for the status.

    Args:
        settings: where the engine is, and whether one may be started.
    """
    if settings.engine_url:
        return f"the first request connects to {engine_host(settings) or 'engine.url'}"
    if sys.platform == "win32":
        return _ON_WINDOWS
    if not settings.engine_autostart:
        return "the first request connects to an engine that runs; none is started (dgemma.engine.autostart is off)"
    return "the first request starts the engine"


def engine_connector(settings: Settings) -> Connect:
    """Returns the function that connects to the engine that the settings name; it may raise `EngineUnavailable`.

    Args:
        settings: where the engine is, its model and device, and whether one may be started.
    """
    if (place := _elsewhere(settings)) is not None:
        from dgemma_engine.remote.back_off import BackOff
        from dgemma_engine.remote.connect import connect_remote

        return partial(connect_remote, place, back_off=BackOff(time.monotonic))

    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> InfillSource:
        if sys.platform == "win32":
            raise NoEngine(_ON_WINDOWS)
        from dgemma_engine.ipc.client import EngineClient

        location = _location(settings)
        if not settings.engine_autostart:
            return await EngineClient.attach(location, on_progress=on_progress, on_closed=on_closed)
        unload_minutes = settings.engine_idle_unload_minutes
        return await EngineClient.attach_or_start(
            location, unload_minutes=unload_minutes, on_progress=on_progress, on_closed=on_closed
        )

    return connect


@asynccontextmanager
async def ready_engine(
    settings: Settings, *, timeout_s: float, on_progress: Callable[[Progress], None]
) -> AsyncGenerator[tuple[InfillSource, Status]]:
    """Yields the engine that the settings name once its model is loaded, and its status.

    Args:
        settings: where the engine is, its model and device, and whether one may be started.
        timeout_s: most seconds that loading may take.
        on_progress: called with the load progress.

    Raises:
        EngineUnavailable: there is none and none can be started, or it cannot load the model in that time.
        EngineFault: the engine answered with an error.
    """
    source = await engine_connector(settings)(on_progress=on_progress, on_closed=lambda _why=None: None)
    try:
        yield source, await source.wait_ready(timeout_s)
    finally:
        await source.close()


def _elsewhere(settings: Settings) -> RemoteLocation | None:
    """Returns where the engine is on another machine; None for one of this machine."""
    if not settings.engine_url:
        return None
    from dgemma_engine.remote.remote_location import RemoteLocation

    return RemoteLocation(
        url=settings.engine_url,
        key_file=settings.engine_key_file,
        ca_file=settings.engine_ca_file,
        plain_hosts=settings.engine_plain_http_hosts,
    )


def _location(settings: Settings) -> EngineLocation:
    """Returns where the socket, lock and log of the chosen model's engine are.

    Raises:
        NoEngine: the model was not fetched.
        EngineUnavailable: the setting names no model; the message has the nearest short name.
    """
    from dgemma_engine.checkpoint.builtin import require_place
    from dgemma_engine.ipc.client import EngineLocation

    choice = chosen_model(settings)
    if choice.missing is not None and not choice.is_stand_in:
        raise NoEngine(choice.notice)
    if os.sep not in choice.runs:
        # Not a path: as one, below this process's folder, it would be reported under a name the user never wrote.
        try:
            require_place(choice.runs)
        except WrongUsage as error:
            raise EngineUnavailable(str(error)) from None
    return EngineLocation.locate(os.environ, model=choice.runs, device=settings.engine_device)
