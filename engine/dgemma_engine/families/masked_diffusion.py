"""Masked diffusion as a family: decoders that fill masks, in Hugging Face folders.

Open-dCoder, the mdlm models of dLLM, Dream, Dream-Coder, DiffuCoder and LLaDA see prompt, canvas and suffix alike: a
window is the prefix, masks, and as much of the suffix as it has room for. They fill as many masks as there
are, so the length of a middle is searched for; DreamOn changes it while it fills. Stable-DiffCoder and the bd3lm models
of dLLM attend block by block: the suffix stands before the prefix, and a token ends the middle. What differs between
them is data (`masked/kinds.py`).
"""

from __future__ import annotations

from dgemma_engine.backends.memory_plan import MemoryPlan
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.absorbing_mask import AbsorbingMask, BlockShare, EndInBlock, EvenShare, LastShare
from dgemma_engine.diffusion.sampler import Commitment, Sampler, TemperatureSchedule
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.family import LoadOptions, PlanOptions, refused_adapter
from dgemma_engine.families.masked.config import MaskedConfig, format_of, kind_of, mask_id_of, resizing_of
from dgemma_engine.families.masked.kinds import KINDS
from dgemma_engine.families.masked.memory_plan import masked_plan
from dgemma_engine.families.masked.weights import load_masked
from dgemma_engine.families.stored_tensors import FolderTensors
from dgemma_engine.model.devices import free_memory, weight_dtype
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.model.ops import Ops
from dgemma_engine.repository_adapters.store import RepositoryAdapter
from dgemma_engine.tokenization.exact_tokenizer import read_exact_tokenizer
from dgemma_engine.tokenization.tokenizer import Tokenizer

# Of an answer without a deadline: the authors take one step for each token.
_MOST_STEPS = 64


class MaskedDiffusionFamily:
    """See `Family`."""

    name: str = "masked_diffusion"

    def recognises(self, facts: CheckpointFacts) -> bool:
        """See `Family.recognises`."""
        return any(kind.fits(facts) for kind in KINDS)

    def has_canvas(self, facts: CheckpointFacts) -> bool:
        """See `Family.has_canvas`: all are trained to denoise."""
        return True

    def read_tokenizer(self, facts: CheckpointFacts) -> Tokenizer:
        """See `Family.read_tokenizer`."""
        return read_exact_tokenizer(facts.path, vocab_size=MaskedConfig.of_facts(facts).vocab_size)

    def read_format(self, facts: CheckpointFacts) -> InfillFormat:
        """See `Family.read_format`."""
        return format_of(facts, MaskedConfig.of_facts(facts))

    def read_sampler(self, facts: CheckpointFacts, vocab_size: int) -> Sampler:
        """See `Family.read_sampler`; at temperature 1 the length search reads unscaled entropies."""
        config, by = MaskedConfig.of_facts(facts), kind_of(facts).surest_by
        resizing, block_tokens = resizing_of(facts, config), config.block_tokens
        acceptance, stop = EvenShare(by=by), LastShare(expand_id=None if resizing is None else resizing.expand_id)
        if block_tokens:
            acceptance = BlockShare(by=by, block_tokens=block_tokens)
            stop = EndInBlock(acceptance=acceptance, end_ids=config.eos_token_ids)
        return Sampler(
            num_steps=_MOST_STEPS,
            schedule=TemperatureSchedule(t_min=1.0, t_max=1.0),
            acceptance=acceptance,
            noise=AbsorbingMask(mask_id=mask_id_of(facts, vocab_size)),
            stop=stop,
            commitment=Commitment.FINAL,
            resizing=resizing,
        )

    def plan(self, facts: CheckpointFacts, options: PlanOptions) -> MemoryPlan:
        """See `Family.plan`; `context_tokens` are those of a window, which every pass computes, or of a prompt."""
        if options.weight_format is not None:
            raise CheckpointError(f"{facts.path}: a {self.name} model cannot be quantised; leave --format out")
        config = MaskedConfig.of_facts(facts)
        window = config.window_tokens if options.context_tokens is None else options.context_tokens
        return masked_plan(
            config,
            has_head=_has_head(facts),
            window_tokens=window,
            device_type=options.device.type,
            dtype=weight_dtype(options.device),
        )

    def load_model(self, facts: CheckpointFacts, options: LoadOptions) -> DiffusionModel:
        """See `Family.load_model`."""
        device = options.device
        # A missing mask, or too little memory, is reported before gigabytes are read.
        mask_id_of(facts, MaskedConfig.of_facts(facts).vocab_size)
        plan = self.plan(facts, PlanOptions(device=device, weight_format=None, context_tokens=None))
        plan.require(free_memory(device), str(device))
        ops = Ops.of_device(device) if options.ops is None else options.ops
        return load_masked(facts, ops, device=device, dtype=weight_dtype(device), report=options.report)

    def load_adapter(self, facts: CheckpointFacts, model: DiffusionModel, stored: RepositoryAdapter) -> ModelAdapter:
        """See `Family.load_adapter`; the family has none."""
        raise refused_adapter(facts, stored)


def _has_head(facts: CheckpointFacts) -> bool:
    """Whether the output matrix is one of its own: by the files, or by the configuration before they are there."""
    if any(facts.path.glob("*.safetensors")):
        return kind_of(facts).names.head in FolderTensors(facts.path).names
    return facts.config.get("tie_word_embeddings") is not True
