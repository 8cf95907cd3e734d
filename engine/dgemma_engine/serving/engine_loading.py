"""A model's name -> the loaded engine that is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.model_store.catalogue import CATALOGUE

if TYPE_CHECKING:
    from dgemma_engine.serving.infill_engine import InfillEngine


def load_engine(model: str, *, device: str, report: Callable[[int, str], None]) -> InfillEngine:
    """Loads a model; on the device thread.

    Args:
        model: short name, folder or file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        report: called with percentage and a line for a person.

    Raises:
        CheckpointError: the model cannot be used, or does not fit.
    """
    # Here, since torch takes seconds, and clients are answered meanwhile.
    from dgemma_engine.infill.engine import Engine

    engine = Engine.load(model_folder(model), device=device, report=report)
    if model in CATALOGUE:
        # Clients are told the short name, not that of the folder or file behind it.
        engine.model_name = model
    return engine
