"""Which family a checkpoint is of: the one its sidecar names, else the one that recognises what it says of itself.

A kind that is known and not run has a sentence of its own (`unsupported`), which a sidecar overrides.
"""

from __future__ import annotations

from collections.abc import Sequence

from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.causal_qwen2 import Qwen2Family
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.diffusion_gemma import DiffusionGemmaFamily
from dgemma_engine.families.family import Family
from dgemma_engine.families.masked_diffusion import MaskedDiffusionFamily
from dgemma_engine.families.unsupported import OWN_CODE, why_unsupported

# Models of masked diffusion borrow the classes of causal ones, so they are asked first.
FAMILIES: Sequence[Family] = (DiffusionGemmaFamily(), MaskedDiffusionFamily(), LlamaFamily(), Qwen2Family())


def family_of(facts: CheckpointFacts, families: Sequence[Family] = FAMILIES) -> Family:
    """Returns the family of a checkpoint.

    Args:
        facts: what the checkpoint says of itself.
        families: to choose from.

    Raises:
        CheckpointError: none of them; the message names what the checkpoint is and what can be run.
    """
    named = facts.sidecar.get("family")
    if named is None and (why := why_unsupported(facts)):
        raise CheckpointError(f"{facts.path}: {why}")
    for family in families:
        if family.name == named if named is not None else family.recognises(facts):
            return family
    known = ", ".join(family.name for family in families)
    if named is None and "auto_map" in facts.config:
        raise CheckpointError(f"{facts.path}: {OWN_CODE}; choose a model of {known}")
    kind = named if named is not None else " ".join((facts.model_type, *facts.architectures))
    raise CheckpointError(f"{facts.path}: is a {kind!r} model, only {known} can be run; choose another model")
