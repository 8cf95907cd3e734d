"""DiffusionGemma as a family: Hugging Face folders, uniform noise, a hole put as `infill.json` says."""

from __future__ import annotations

from dgemma_engine.backends.select import load_runnable
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.sampler import Sampler
from dgemma_engine.diffusion.sampler_config import load_sampler
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.model.config import MODEL_TYPE
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.tokenization.tokenizer import Tokenizer


class DiffusionGemmaFamily:
    """See `Family`."""

    name: str = MODEL_TYPE

    def recognises(self, facts: CheckpointFacts) -> bool:
        """See `Family.recognises`."""
        return facts.gguf is None and facts.model_type == MODEL_TYPE

    def has_canvas(self, facts: CheckpointFacts) -> bool:
        """See `Family.has_canvas`: all are trained to denoise."""
        return True

    def read_tokenizer(self, facts: CheckpointFacts) -> Tokenizer:
        """See `Family.read_tokenizer`."""
        return Tokenizer.load(facts.path)

    def read_format(self, facts: CheckpointFacts) -> InfillFormat:
        """See `Family.read_format`."""
        return InfillFormat.load(facts.path)

    def read_sampler(self, facts: CheckpointFacts, vocab_size: int) -> Sampler:
        """See `Family.read_sampler`."""
        return load_sampler(facts.path, vocab_size)

    def load_model(self, facts: CheckpointFacts, options: LoadOptions) -> DiffusionModel:
        """See `Family.load_model`."""
        return load_runnable(
            facts.path,
            device=options.device,
            ops=options.ops,
            prompt_tokens=options.prompt_tokens,
            report=options.report,
        )
