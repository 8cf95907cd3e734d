"""A model that solves tasks: a path in; the model, its tokenizer, the marks of its prompts and its sampler out.

A DiffusionGemma solves as it is. A Llama needs an adapter for its canvas, `canvas.safetensors` of `tune --task`, and is
read without one only to be measured before it is tuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from dgemma_engine.checkpoint.builtin import model_name
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask, NothingMasked
from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, TemperatureSchedule
from dgemma_engine.errors import TaskError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts, read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.llama.adaptation import adapt
from dgemma_engine.families.llama.adapter import Adapter, Adapters, AdapterTokens, fingerprint
from dgemma_engine.families.llama.config import LLAMA
from dgemma_engine.families.llama.packed_model import PackedLlama, num_values_of
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.families.registry import family_of
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.devices import product_kinds, weight_dtype
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.ops import Ops
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.tasks.task_tokens import TaskTokenizer

ADAPTER = "canvas.safetensors"
"""File of a task's adapter in its folder."""

_NUM_STEPS = 48
_PROMPT_TOKENS = 1_024
# Those of DiffusionGemma's own configuration.
_ENTROPY_BOUND = 0.1
# Marks that SmolLM2 and its relatives hold and never use within a text.
_START, _NAME, _MASK = "<|endoftext|>", "<filename>", "<empty_output>"
_GEMMA_MASK = "<mask>"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TaskModel:
    """A loaded model.

    Attributes:
        model: in inference mode.
        tokenizer: makes tokens of rows.
        sampler: decisions of its denoising loop.
        suppressed_ids: tokens that no step proposes.
        canvas_tokens: most positions of a canvas.
        context_tokens: most positions in all.
    """

    model: DiffusionModel
    tokenizer: TaskTokenizer
    sampler: Sampler
    suppressed_ids: tuple[int, ...]
    canvas_tokens: int
    context_tokens: int

    @classmethod
    def load(cls, path: Path, device: torch.device, adapter: Path | None = None) -> Self:
        """Loads a model.

        Args:
            path: its folder or file.
            device: where it runs.
            adapter: folder of a task's adapter; None loads a Llama that was never tuned.

        Raises:
            CheckpointError: the model or the adapter cannot be used.
            TaskError: a DiffusionGemma takes no adapter, or the vocabulary has no mark for a blank.
        """
        facts = read_facts(path)
        if family_of(facts).name == LLAMA:
            return cls._llama(facts, device, adapter)
        if adapter is not None:
            raise TaskError(f"{model_name(path)} is no Llama and takes no adapter; leave out --adapter")
        return cls._diffusion_gemma(facts, device)

    @classmethod
    def _diffusion_gemma(cls, facts: CheckpointFacts, device: torch.device) -> Self:
        family, config = family_of(facts), ModelConfig.load(facts.path)
        tokenizer = family.read_tokenizer(facts)
        options = LoadOptions(device=device, ops=None, prompt_tokens=_PROMPT_TOKENS, report=lambda _percent: None)
        return cls(
            model=family.load_model(facts, options),
            tokenizer=TaskTokenizer(
                tokenizer, start_id=config.bos_token_id, blank_id=_mark(facts.path, tokenizer, _GEMMA_MASK)
            ),
            sampler=family.read_sampler(facts, config.vocab_size),
            suppressed_ids=tokenizer.special_ids,
            canvas_tokens=config.canvas_length,
            context_tokens=config.max_position_embeddings,
        )

    @classmethod
    def _llama(cls, facts: CheckpointFacts, device: torch.device, folder: Path | None) -> Self:
        tokenizer = family_of(facts).read_tokenizer(facts)
        model = load_llama(facts.path, Ops.of_device(device), device=device, dtype=weight_dtype(device))
        if folder is None:
            tokens = task_marks(facts.path, tokenizer)
        else:
            adapter = Adapter.read(folder / ADAPTER)
            if adapter.base_sha256 != fingerprint(facts.path):
                raise TaskError(
                    f"{adapter.path}: was trained on another model than {model_name(facts.path)}; choose that one"
                )
            adapt(model, Adapters(causal=None, canvas=adapter))
            tokens = adapter.tokens
        assert tokens.mask is not None, "a canvas has a mask"
        longest = model.config.max_position_embeddings
        kinds = product_kinds(num_values=num_values_of(model), in_four_bits=False)
        return cls(
            model=PackedLlama(model, kinds) if device.type == "cpu" else model,
            tokenizer=TaskTokenizer(tokenizer, start_id=tokens.end, blank_id=tokens.mask),
            sampler=Sampler(
                num_steps=_NUM_STEPS,
                schedule=TemperatureSchedule(t_min=0.0, t_max=1.0),
                acceptance=EntropyBound(bound=_ENTROPY_BOUND),
                noise=AbsorbingMask(mask_id=tokens.mask),
                stop=NothingMasked(),
            ),
            suppressed_ids=tokenizer.special_ids,
            canvas_tokens=longest,
            context_tokens=longest,
        )


def task_marks(path: Path, tokenizer: Tokenizer) -> AdapterTokens:
    """Returns the marks of a Llama's task adapter.

    Args:
        path: of the base, for messages.
        tokenizer: of the base.

    Raises:
        TaskError: its vocabulary lacks one.
    """
    end, name, mask = (_mark(path, tokenizer, mark) for mark in (_START, _NAME, _MASK))
    return AdapterTokens(end=end, name=name, mask=mask)


def _mark(path: Path, tokenizer: Tokenizer, name: str) -> int:
    for token_id in tokenizer.special_ids:
        if tokenizer.name_of(token_id) == name:
            return token_id
    raise TaskError(f"{model_name(path)}: its vocabulary has no special token {name}; choose another model")
