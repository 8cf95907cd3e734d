"""DiffusionGemma as a family: Hugging Face folders and GGUF files, uniform noise, prompts as in `infill.json`."""

from __future__ import annotations

from dataclasses import replace

from dgemma_engine.backends.memory_plan import Item, MemoryPlan, memory_plan, stored_plan
from dgemma_engine.backends.select import load_runnable
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.checkpoint.gguf_config import ARCHITECTURE, read_config, sampler_values
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.diffusion.sampler_config import load_sampler, sampler_of
from dgemma_engine.errors import CheckpointError, FormatError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.family import LoadOptions, PlanOptions, refused_adapter
from dgemma_engine.model.config import MODEL_TYPE, ModelConfig
from dgemma_engine.model.devices import is_small, weight_dtype
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.repository_adapters.store import RepositoryAdapter
from dgemma_engine.tokenization.gguf_tokenizer import read_tokenizer
from dgemma_engine.tokenization.tokenizer import Tokenizer


class DiffusionGemmaFamily:
    """See `Family`."""

    name: str = MODEL_TYPE

    def recognises(self, facts: CheckpointFacts) -> bool:
        """See `Family.recognises`."""
        return facts.model_type == (MODEL_TYPE if facts.gguf is None else ARCHITECTURE)

    def has_canvas(self, facts: CheckpointFacts) -> bool:
        """See `Family.has_canvas`: all are trained to denoise."""
        return True

    def read_tokenizer(self, facts: CheckpointFacts) -> Tokenizer:
        """See `Family.read_tokenizer`."""
        return Tokenizer.load(facts.path) if facts.gguf is None else read_tokenizer(facts.gguf)

    def read_format(self, facts: CheckpointFacts) -> InfillFormat:
        """See `Family.read_format`; a GGUF file has no `infill.json`, and was not trained to fill."""
        if facts.gguf is not None:
            return InfillFormat.untrained()
        form = InfillFormat.load(facts.path)
        if form.parallel_suffix_tokens:
            raise FormatError(
                f"{facts.path}: this family reads no suffix beside the prompt; set parallel_suffix_tokens to 0"
            )
        return form

    def read_sampler(self, facts: CheckpointFacts, vocab_size: int) -> Sampler:
        """See `Family.read_sampler`."""
        if facts.gguf is None:
            return load_sampler(facts.path, vocab_size)
        return sampler_of(facts.path, sampler_values(facts.gguf), vocab_size)

    def plan(self, facts: CheckpointFacts, options: PlanOptions) -> MemoryPlan:
        """See `Family.plan`: a small model on a processor keeps its weights twice, any other as they are stored."""
        device, form, dtype = options.device, options.weight_format, weight_dtype(options.device)
        if facts.gguf is not None and form is not None:
            raise CheckpointError(f"{facts.path}: a GGUF file cannot be quantised; leave --format out")
        config = ModelConfig.from_hf(dict(facts.config)) if facts.gguf is None else read_config(facts.gguf)
        tokens = options.tokens(config.max_position_embeddings)
        plain = memory_plan(config, weight_format=form, context_tokens=tokens, device_type=device.type, dtype=dtype)
        num_bytes = sum(item.num_bytes for item in plain.weights)
        if form is None and is_small(num_bytes // dtype.itemsize, device):
            return replace(plain, expansion=Item(name="weights in the processor's order", num_bytes=num_bytes))
        if form is None and (facts.gguf is not None or any(facts.path.glob("*.safetensors"))):
            return stored_plan(facts.path, context_tokens=tokens, device_type=device.type, dtype=dtype)
        return plain

    def load_model(self, facts: CheckpointFacts, options: LoadOptions) -> DiffusionModel:
        """See `Family.load_model`."""
        return load_runnable(
            facts.path,
            device=options.device,
            ops=options.ops,
            prompt_tokens=options.prompt_tokens,
            report=options.report,
        )

    def load_adapter(self, facts: CheckpointFacts, model: DiffusionModel, stored: RepositoryAdapter) -> ModelAdapter:
        """See `Family.load_adapter`; the family has none."""
        raise refused_adapter(facts, stored)
