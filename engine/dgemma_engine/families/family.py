"""The interface of a model family: all that the engine needs of it beyond `DiffusionModel`.

A family with a causal prompt has its keys and values cached exactly, and one cache serves both modes; one whose
attention sees everything has no causal mode, and every pass carries the whole window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from dgemma_engine.backends.memory_plan import MemoryPlan
from dgemma_engine.checkpoint.builtin import model_name
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.model.ops import Ops
from dgemma_engine.model_store.catalogue import name_of_file
from dgemma_engine.repository_adapters.store import RepositoryAdapter
from dgemma_engine.tokenization.tokenizer import Tokenizer

_CONTEXT_TOKENS = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is to be loaded.

    Attributes:
        device: where it runs.
        ops: operations it calls; None takes kernels on CUDA and plain PyTorch elsewhere.
        prompt_tokens: of the longest prompt.
        report: called with the percentage read so far.
    """

    device: torch.device
    ops: Ops | None
    prompt_tokens: int
    report: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a model's memory is planned for.

    Attributes:
        device: where it would run.
        weight_format: that its weights would be quantised to; None for those that it has.
        context_tokens: of the longest prompt, the canvas included; None for 8,192, or all that the model can have.
    """

    device: torch.device
    weight_format: Format | None
    context_tokens: int | None

    def tokens(self, most: int) -> int:
        """Returns the tokens of the longest prompt of a model that can have `most`."""
        return min(_CONTEXT_TOKENS, most) if self.context_tokens is None else self.context_tokens


def refused_adapter(facts: CheckpointFacts, stored: RepositoryAdapter) -> CheckpointError:
    """Returns what `load_adapter` of a family without adapters raises."""
    name = name_of_file(stored.about.base_name)
    return CheckpointError(f"the model {model_name(facts.path)} takes no adapters; choose {name}")


class Family(Protocol):
    """One architecture with its conventions.

    Attributes:
        name: the same in messages and sidecar files.
    """

    name: str

    def recognises(self, facts: CheckpointFacts) -> bool:
        """Whether a checkpoint without a sidecar is of this family."""
        ...

    def has_canvas(self, facts: CheckpointFacts) -> bool:
        """Whether a checkpoint was trained to denoise, so that its canvas mode can be used."""
        ...

    def read_tokenizer(self, facts: CheckpointFacts) -> Tokenizer:
        """Returns the checkpoint's tokenizer.

        Raises:
            CheckpointError: it is missing, damaged, or of a kind that cannot be used.
        """
        ...

    def read_format(self, facts: CheckpointFacts) -> InfillFormat:
        """Returns the prompt and canvas format that the checkpoint expects.

        Raises:
            FormatError: its description cannot be used.
        """
        ...

    def read_sampler(self, facts: CheckpointFacts, vocab_size: int) -> Sampler:
        """Returns the decisions of the checkpoint's denoising loop: its noise, what is accepted, when a row stops.

        Raises:
            CheckpointError: its description cannot be used.
        """
        ...

    def plan(self, facts: CheckpointFacts, options: PlanOptions) -> MemoryPlan:
        """Returns the memory that the model needs; reads no weights.

        Raises:
            CheckpointError: the configuration cannot be used, or not with these options.
        """
        ...

    def load_model(self, facts: CheckpointFacts, options: LoadOptions) -> DiffusionModel:
        """Returns the model that runs on the device.

        Raises:
            CheckpointError: the checkpoint cannot be used, or does not fit the device.
        """
        ...

    def load_adapter(self, facts: CheckpointFacts, model: DiffusionModel, stored: RepositoryAdapter) -> ModelAdapter:
        """Returns a repository's adapter for the caches of a model.

        Args:
            facts: of the checkpoint.
            model: what `load_model` returned for it.
            stored: the adapter.

        Raises:
            CheckpointError: it is damaged, or was trained on another base; or the family has none.
        """
        ...
