"""Which adapter one request is answered with, and what comes with it: plain values, and the interface that chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.protocol.messages import AdapterUse


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AdapterChoice:
    """What one request is answered with.

    Attributes:
        model_adapter: stands beside the model's weights; None is the model as it is. Prompts are kept for one adapter.
        calibration: fitted with that adapter, or with the model as it is.
        use: what the client is told of the adapter.
    """

    model_adapter: ModelAdapter | None
    calibration: Calibration
    use: AdapterUse


class AdapterSource(Protocol):
    """The adapters beside one model."""

    def choose(self, folder: str) -> AdapterChoice:
        """Returns what answers a request.

        Args:
            folder: `Context.folder`.
        """
        ...

    def uses(self) -> dict[str, str]:
        """Returns why each requested adapter cannot be used now, by its root; empty where it can.

        May be called from any thread.
        """
        ...


class NoAdapters:
    """The source of a model without adapters.

    Args:
        calibration: of the model.
    """

    def __init__(self, calibration: Calibration) -> None:
        self._choice = AdapterChoice(model_adapter=None, calibration=calibration, use=AdapterUse())

    def choose(self, folder: str) -> AdapterChoice:
        """See `AdapterSource.choose`."""
        return self._choice

    def uses(self) -> dict[str, str]:
        """See `AdapterSource.uses`."""
        return {}
