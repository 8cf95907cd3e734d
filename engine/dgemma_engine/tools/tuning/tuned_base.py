"""What is tuned: a Llama with the adapter that the engine merges into it, and the engine of both that answers holes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from dgemma_engine.checkpoint.builtin import model_name
from dgemma_engine.checkpoint.calibration import Calibration, fingerprint
from dgemma_engine.errors import TrainingError
from dgemma_engine.families.llama.adapter import Adapter, Adapters
from dgemma_engine.families.llama.adapter import fingerprint as sha256_of
from dgemma_engine.infill.engine import Engine
from dgemma_engine.repository_adapters.store import AdapterStore


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedBase:
    """A base.

    Attributes:
        path: GGUF file of a Llama.
        merged: causal adapter that the engine merges into it.
        sha256: of the file.
        merged_sha256: of the adapter.
        calibration: of the base with that adapter.
        fingerprint: that its calibrations name.
    """

    path: Path
    merged: Adapter
    sha256: str
    merged_sha256: str
    calibration: Calibration
    fingerprint: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Reads what there is of a base, but for its weights.

        Raises:
            CheckpointError: it cannot be used.
            TrainingError: it has no causal adapter.
        """
        merged = Adapters.find(path).causal
        if merged is None:
            raise TrainingError(
                f"the model {model_name(path)} has no adapter that fills holes, and a repository's is trained on top "
                "of that; choose --model small"
            )
        mark = fingerprint(path)
        return cls(
            path=path,
            merged=merged,
            sha256=sha256_of(path),
            merged_sha256=sha256_of(merged.path),
            calibration=Calibration.load(path, mark),
            fingerprint=mark,
        )

    def require_unchanged(self) -> None:
        """Makes sure that both files are those that they were.

        Raises:
            TrainingError: one has changed or gone.
        """
        try:
            now = sha256_of(self.path), sha256_of(self.merged.path)
        except OSError:
            now = ()
        if now != (self.sha256, self.merged_sha256):
            raise TrainingError(f"{base_changed(self.path)}, nothing was installed; start again without --resume")

    def engine(self, device: torch.device, adapters: AdapterStore | None = None) -> Engine:
        """Returns the engine.

        Args:
            device: where it runs.
            adapters: of repositories; None uses none.

        Raises:
            CheckpointError: the base cannot be loaded.
        """
        return Engine.load(
            self.path,
            device=str(device),
            report=lambda _percent, _message: None,
            calibration=self.calibration,
            adapters=adapters,
        )


def base_changed(path: Path) -> str:
    """Returns why a training on another base than the present one is of no use."""
    return f"{path.name}: the model or its adapter has changed since the training began"
