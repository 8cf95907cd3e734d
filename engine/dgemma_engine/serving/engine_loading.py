"""A model's name -> the loaded engine that is served."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.repository_adapters.store import AdapterStore

if TYPE_CHECKING:
    from dgemma_engine.serving.infill_engine import InfillEngine


def load_engine(
    model: str, *, device: str, report: Callable[[int, str], None], team_prompt_bytes: int | None = None
) -> InfillEngine:
    """Loads a model; on the device thread.

    Args:
        model: short name, folder or file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        report: called with percentage and a line for a person.
        team_prompt_bytes: memory for prompts of an engine that serves a team on a machine of its own; 0 takes a share
            of what the model leaves. None is for one user's machine, whose adapters of repositories are used.

    Raises:
        CheckpointError: the model cannot be used, or does not fit.
    """
    # Here, since torch takes seconds, and clients are answered meanwhile.
    from dgemma_engine.infill.engine import Engine
    from dgemma_engine.infill.store_limits import StoreLimits

    limits, adapters = StoreLimits.of_one_user, _adapters()
    if team_prompt_bytes is not None:
        adapters = None
        limits = partial(StoreLimits.of_team, prompt_bytes=team_prompt_bytes)
    return Engine.load(model_folder(model), device=device, report=report, limits=limits, adapters=adapters)


def _adapters() -> AdapterStore | None:
    """Returns the user's adapters; None for a user without a home folder, who can have none."""
    with suppress(ModelStoreError):
        return AdapterStore.locate(os.environ)
    return None
