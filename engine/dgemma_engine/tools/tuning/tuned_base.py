"""What is tuned: a Llama with the adapter that the engine merges into it, and the engine of both that answers holes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from dgemma_engine.checkpoint.calibration import Calibration, fingerprint
from dgemma_engine.errors import TrainingError
from dgemma_engine.families.adapter_choice import NoAdapters
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.llama.adaptation import adapt, merge
from dgemma_engine.families.llama.adapter import Adapter, Adapters
from dgemma_engine.families.llama.adapter import fingerprint as sha256_of
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.families.registry import family_of
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode
from dgemma_engine.model.devices import is_small, limit_threads, one_row_weights, use_device, weight_dtype
from dgemma_engine.model.ops import Ops


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
                f"{path.name}: has no adapter that fills holes, and a repository's is trained on top of that; "
                "choose --model small"
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
            raise base_changed(self.path)

    def engine(self, device: torch.device) -> Engine:
        """Returns the engine without a repository's adapter.

        Raises:
            CheckpointError: the base cannot be loaded.
        """
        return Engine.load(self.path, device=str(device), report=lambda _percent, _message: None)

    def engine_with(self, adapter: Adapter, device: torch.device) -> Engine:
        """Returns the engine with a repository's adapter in its weights, otherwise as `engine` returns it.

        Args:
            adapter: trained on top of `merged`.
            device: where it runs.

        Raises:
            CheckpointError: the base or the adapter cannot be loaded.
        """
        use_device(device)
        limit_threads(os.environ)
        facts = read_facts(self.path)
        family = family_of(facts)
        llama = load_llama(self.path, Ops.of_device(device), device=device, dtype=weight_dtype(device))
        adapt(llama, Adapters.find(self.path))
        merge(llama, adapter.tensors(llama.config), base=llama)
        num_bytes = sum(parameter.nbytes for parameter in llama.parameters())
        engine = Engine(
            PackedLlama(llama, one_row_weights()) if is_small(num_bytes, device) else llama,
            family.read_tokenizer(facts),
            family.read_format(facts),
            family.read_sampler(facts, llama.config.vocab_size),
            NoAdapters(self.calibration),
            name=self.path.name,
            path=str(self.path),
            decode=None if family.has_canvas(facts) else Decode.LEFT_TO_RIGHT,
        )
        engine.warm_up()
        return engine


def base_changed(path: Path) -> TrainingError:
    """Returns the fault of a base that is another one than when the training began."""
    return TrainingError(
        f"{path.name}: the model or its adapter has changed since the training began; start again without --resume"
    )
