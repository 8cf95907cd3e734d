"""Llama as a family: folders and GGUF files, left to right, and with a canvas where an adapter brings one.

The base was trained from left to right on whole files, so the prompt is the prefix, with the suffix beside it: the
middle reads both, each of which was encoded by itself (parallel context, arXiv 2212.10947). A causal adapter was
trained to fill that way, and ends a middle itself.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from dgemma_kernels.packing.few_bits import ProductKinds

from dgemma_engine.backends.memory_plan import MemoryPlan
from dgemma_engine.checkpoint.builtin import model_name
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask, NothingMasked, SurestFirst
from dgemma_engine.diffusion.sampler import Sampler, TemperatureSchedule
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.family import LoadOptions, PlanOptions
from dgemma_engine.families.llama.adaptation import adapt, adapter_beside
from dgemma_engine.families.llama.adapter import Adapter, Adapters, fingerprint
from dgemma_engine.families.llama.config import ARCHITECTURES, LLAMA, LlamaConfig
from dgemma_engine.families.llama.memory_plan import llama_plan
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.packed_layers import pack_adapter
from dgemma_engine.families.llama.packed_model import PackedLlama, num_values_of
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model.devices import product_kinds, weight_dtype
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.model.ops import Ops
from dgemma_engine.repository_adapters.store import RepositoryAdapter
from dgemma_engine.tokenization.gguf_tokenizer import read_tokenizer
from dgemma_engine.tokenization.tokenizer import Tokenizer

# Types that store a weight in 4 bits: a group has 16 different values.
_FOUR_BITS = ("Q4_0", "Q4_1", "Q4_K")
# Untrained SmolLM2-135M: rest of the line exact for 27 % of 60 holes with 512 prefix tokens, 12 % of 100 with 288.
_PREFIX_TOKENS = 768
# Rest of the line, untrained: 1.35 nats a token with the suffix beside the prompt, 1.58 without.
_PARALLEL_TOKENS = 56
# A slot of 32 positions is committed in eight steps; the others are for tokens that were masked again.
_STEPS, _TOKENS_A_STEP = 12, 4


class LlamaFamily:
    """See `Family`."""

    name: str = LLAMA

    def recognises(self, facts: CheckpointFacts) -> bool:
        """See `Family.recognises`: models that only borrow the type have a class name of their own."""
        return facts.model_type == self.name and facts.architectures in ((), (ARCHITECTURES[self.name],))

    def has_canvas(self, facts: CheckpointFacts) -> bool:
        """See `Family.has_canvas`: a canvas adapter brings one."""
        return Adapters.find(facts.path).canvas is not None

    def read_tokenizer(self, facts: CheckpointFacts) -> Tokenizer:
        """See `Family.read_tokenizer`."""
        return Tokenizer.load(facts.path) if facts.gguf is None else read_tokenizer(facts.gguf)

    def read_format(self, facts: CheckpointFacts) -> InfillFormat:
        """See `Family.read_format`."""
        tokens = Adapters.find(facts.path).tokens
        return InfillFormat(
            fill_token_id=None if tokens is None else tokens.end,
            name_token_id=None if tokens is None else tokens.name,
            more_token_id=None,
            prefix_token_id=None,
            suffix_token_id=None,
            slot_sizes=(8, 16, 32),
            prefix_tokens=_PREFIX_TOKENS,
            suffix_tokens=0,
            suffix_head_tokens=32,
            parallel_suffix_tokens=_PARALLEL_TOKENS,
            snippet_tokens=512,
            healing="token",
            judges_text=True,
        )

    def read_sampler(self, facts: CheckpointFacts, vocab_size: int) -> Sampler:
        """See `Family.read_sampler`; without a canvas no step is made."""
        tokens = Adapters.find(facts.path).tokens
        return Sampler(
            num_steps=_STEPS,
            schedule=TemperatureSchedule(t_min=0.0, t_max=1.0),
            acceptance=SurestFirst(num_tokens=_TOKENS_A_STEP, num_remasked=1),
            noise=AbsorbingMask(mask_id=0 if tokens is None or tokens.mask is None else tokens.mask),
            stop=NothingMasked(),
        )

    def plan(self, facts: CheckpointFacts, options: PlanOptions) -> MemoryPlan:
        """See `Family.plan`."""
        if options.weight_format is not None:
            raise CheckpointError(f"{facts.path}: a {self.name} model cannot be quantised; leave --format out")
        if facts.gguf is None:
            config = LlamaConfig.from_hf(dict(facts.config))
            has_head = not facts.config.get("tie_word_embeddings", False)
        else:
            config, has_head = LlamaConfig.from_gguf(facts.gguf), "output.weight" in facts.gguf.tensors
        return llama_plan(
            config,
            has_head=has_head,
            context_tokens=options.tokens(config.max_position_embeddings),
            device_type=options.device.type,
            dtype=weight_dtype(options.device),
            products=lambda num_values: _products(facts, num_values),
            four_bit_values=_four_bit_values(facts.gguf),
            adapter_rank=_rank(Adapters.find(facts.path).canvas),
            merged_rank=_rank(Adapters.find(facts.path).causal),
        )

    def load_model(self, facts: CheckpointFacts, options: LoadOptions) -> DiffusionModel:
        """See `Family.load_model`."""
        device = options.device
        ops = Ops.of_device(device) if options.ops is None else options.ops
        model = load_llama(facts.path, ops, device=device, dtype=weight_dtype(device), report=options.report)
        adapters = Adapters.find(facts.path)
        if not packs(device):
            adapt(model, adapters)
            return model
        causal = None if adapters.causal is None else adapters.causal.tensors(model.config)
        adapt(model, replace(adapters, causal=None))
        return PackedLlama(model, _products(facts, num_values_of(model)), causal)

    def load_adapter(self, facts: CheckpointFacts, model: DiffusionModel, stored: RepositoryAdapter) -> ModelAdapter:
        """See `Family.load_adapter`."""
        adapter, about = Adapter.read(stored.path), stored.about
        if facts.gguf is None:
            raise CheckpointError(
                f"{facts.path}: is a folder, and adapters are for GGUF files; choose one as the model"
            )
        merged = Adapters.find(facts.path).causal
        bases = fingerprint(facts.path), "" if merged is None else fingerprint(merged.path)
        if {adapter.base_sha256, about.base_sha256} != {bases[0]} or about.merged_sha256 != bases[1]:
            raise CheckpointError(
                f"it was trained on another model than {model_name(facts.path)}; choose that one, or run: "
                f"dgemma-engine tune {about.root}"
            )
        config = LlamaConfig.from_gguf(facts.gguf)
        tensors = adapter.tensors(config)
        assert isinstance(model, LlamaModel | PackedLlama), "what `load_model` returns"
        packed = isinstance(model, PackedLlama)
        return pack_adapter(tensors, config.num_layers) if packed else adapter_beside(model, tensors)


def packs(device: torch.device) -> bool:
    """Whether the weights of a model on a device are packed for it."""
    return device.type == "cpu"


def _products(facts: CheckpointFacts, num_values: int) -> ProductKinds:
    """Returns what products read on a processor."""
    return product_kinds(num_values=num_values, in_four_bits=_four_bit_values(facts.gguf) > 0)


def _four_bit_values(gguf: GgufFile | None) -> int:
    """Returns how many weights a file stores in 4 bits."""
    infos = () if gguf is None else gguf.tensors.values()
    return sum(prod(info.shape) for info in infos if info.type.name in _FOUR_BITS)


def _rank(adapter: Adapter | None) -> int:
    """Returns the rank of an adapter, 0 without one."""
    return 0 if adapter is None else adapter.rank
