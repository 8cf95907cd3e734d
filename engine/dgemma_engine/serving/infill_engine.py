"""The interface of a loaded model for its users: the device thread, and any further front end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dgemma_engine.protocol.messages import Context, Infill, OnDraft
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tracing.recorder import Recorder


class InfillEngine(Protocol):
    """A loaded model. Lives on the device thread; its attributes may be read from any."""

    model_name: str
    model_path: str
    device: str
    number_format: str
    compiled: bool
    uncompiled_reason: str

    @property
    def adapters(self) -> dict[str, str]:
        """See `Status.adapters`."""
        ...

    @property
    def denoising_steps(self) -> int:
        """Denoising steps since the start; never falls."""
        ...

    @property
    def device_memory_bytes(self) -> int:
        """Memory held on the accelerator; 0 on a CPU."""
        ...

    @property
    def notice(self) -> str:
        """Why it is slower than usual, one line for a person; empty if it is not."""
        ...

    def filling(
        self, context: Context, cancel: Cancel, *, on_draft: OnDraft = ..., recorder: Recorder | None = ...
    ) -> Pieces[Infill]:
        """Answers one request, checking `cancel` before every step. Requests of different documents may alternate.

        Args:
            context: the request; drafts are made only if it has `drafts`.
            cancel: its cancellation and deadline.
            on_draft: receives the text between steps; returns at once. Does nothing by default.
            recorder: receives what every step did. None by default.
        """
        ...


def about(engine: InfillEngine) -> str:
    """Returns what is loaded where, for the log."""
    execution = "compiled" if engine.compiled else "not compiled"
    reason = f" ({engine.uncompiled_reason})" if engine.uncompiled_reason else ""
    where = f"{engine.model_name} is loaded on {engine.device} in {engine.number_format}"
    return f"{where}; its layers are {execution}{reason}"


Load = Callable[[Callable[[int, str], None]], InfillEngine]
"""Loads the model on the calling thread; its argument reports percent and a line for a person."""
