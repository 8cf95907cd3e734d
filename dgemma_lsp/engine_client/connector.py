"""Settings -> the way to the real engine. The only place that decides between attaching and starting."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from dgemma_engine.engine_client.infill_source import Connect
from dgemma_engine.ipc.client import EngineClient, EngineLocation, NoEngine
from dgemma_engine.model_store import catalogue
from dgemma_engine.model_store.choice import ModelChoice, choose_model
from dgemma_engine.protocol.messages import Progress
from dgemma_engine.protocol.status_messages import Status

from dgemma_lsp.settings.settings import Settings


def chosen_model(settings: Settings) -> ModelChoice:
    """Returns which model runs with these settings; another takes the place of the default one until that is fetched.

    Args:
        settings: the model.
    """
    is_default = settings.engine_model == catalogue.DEFAULT_MODEL
    return choose_model(None if is_default else settings.engine_model, os.environ)


def engine_connector(settings: Settings) -> Connect:
    """Returns what connects to the engine that the settings name; it raises `EngineUnavailable`.

    Args:
        settings: model, device, and whether an engine may be started.
    """

    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> EngineClient:
        location = _location(settings)
        reach = EngineClient.attach_or_start if settings.engine_autostart else EngineClient.attach
        return await reach(location, on_progress=on_progress, on_closed=on_closed)

    return connect


@asynccontextmanager
async def ready_engine(
    settings: Settings, *, timeout_s: float, on_progress: Callable[[Progress], None]
) -> AsyncGenerator[tuple[EngineClient, Status]]:
    """Gives the engine that the settings name once its model is loaded, and what it said of itself then.

    Args:
        settings: model, device, and whether an engine may be started.
        timeout_s: most seconds that loading may take.
        on_progress: told how far loading has come.

    Raises:
        EngineUnavailable: none can be had, or it cannot load the model, or takes longer.
    """
    location = _location(settings)
    reach = EngineClient.attach_or_start if settings.engine_autostart else EngineClient.attach
    client = await reach(location, on_progress=on_progress)
    async with client:
        yield client, await client.wait_ready(timeout_s)


def _location(settings: Settings) -> EngineLocation:
    """Returns where the engine of the chosen model lives; raises `NoEngine` for one without its model's files."""
    choice = chosen_model(settings)
    if choice.missing is not None and not choice.is_stand_in:
        raise NoEngine(choice.notice)
    return EngineLocation.locate(os.environ, model=choice.runs, device=settings.engine_device)
