"""Checkpoints that are known and cannot be run yet: why, and what works in their place.

Each would load as another kind and compute something else, or is taken for a model that it is not.
"""

from __future__ import annotations

from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.masked.kinds import KINDS

OWN_CODE = "comes with code of its own (auto_map in config.json), which is never run"
_WORKS = "choose Stable-DiffCoder 8B, Dream-Coder 7B or Open-dCoder 0.5B"
_UNTRAINED = f"was not trained to fill holes, and is not supported yet; {_WORKS}"
_BLOCK_MODELS = {"sdar": "SDAR", "sdar_moe": "SDAR", "nemotron_labs_diffusion": "Nemotron-Labs-Diffusion"}
_CAUSAL_QWEN = {("qwen3", "Qwen3ForCausalLM")}


def why_unsupported(facts: CheckpointFacts) -> str:
    """Returns why a checkpoint is refused, and what works; empty for one that no rule here names.

    Args:
        facts: of a checkpoint without a sidecar.
    """
    is_masked = any(kind.fits(facts) for kind in KINDS)
    if facts.model_type in _BLOCK_MODELS:
        return f"is {_BLOCK_MODELS[facts.model_type]}, which {_UNTRAINED}"
    if facts.model_type == "llama" and facts.config.get("auto_map") and not is_masked:
        return f"{OWN_CODE}: its classes are not those of a plain Llama; choose a checkpoint without auto_map"
    if not is_masked and any((facts.model_type, name) in _CAUSAL_QWEN for name in facts.architectures):
        return (
            f"is a causal {facts.architectures[0]} without a mask token; causal models of this kind cannot be run, "
            "choose a Qwen2 or a Llama. If it is trained for masked diffusion, say so in family.json: "
            '{"family": "masked_diffusion", "kind": KIND, "mask_token_id": ID}'
        )
    return ""
