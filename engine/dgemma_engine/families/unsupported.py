"""Checkpoints that are known and cannot be run yet: why, and what works in their place.

Each would load as another kind and compute something else, or is taken for a model that it is not.
"""

from __future__ import annotations

from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.masked.kinds import KINDS
from dgemma_engine.tokenization.added_tokens import added_tokens, read_object

OWN_CODE = "comes with code of its own (auto_map in config.json), which is never run"
_WORKS = "choose Dream-Coder 7B, Open-dCoder 0.5B or a model of dLLM trained as mdlm"
_BLOCKS = f"attends block by block, which is not supported yet; {_WORKS}"
# What these say of themselves, and how many positions a block has.
_BLOCK_MODELS = {"sdar": "SDAR", "sdar_moe": "SDAR", "nemotron_labs_diffusion": "Nemotron-Labs-Diffusion"}
_CAUSAL_QWEN = {("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")}


def why_unsupported(facts: CheckpointFacts) -> str:
    """Returns why a checkpoint is refused, and what works; empty for one that no rule here names.

    Args:
        facts: of a checkpoint without a sidecar.
    """
    own_code = str(facts.config.get("auto_map", "")).lower()
    classes = " ".join(facts.architectures).lower()
    if facts.model_type in _BLOCK_MODELS:
        return f"is {_BLOCK_MODELS[facts.model_type]}, which {_BLOCKS}"
    if "diffcoder" in classes or (facts.model_type == "llama" and "diffcoder" in own_code):
        return f"is Stable-DiffCoder, which {_BLOCKS}"
    if facts.model_type.startswith("a2d-") and "bd3lm" in _names(facts):
        return f"is a block diffusion model of dLLM (bd3lm), which {_BLOCKS}"
    if facts.model_type == "Dream" and _can_expand(facts):
        return (
            "is DreamOn, whose canvas grows and shrinks by tokens of its own (<|expand|>), which is not supported yet; "
            "choose Dream-Coder 7B, whose lengths are searched for"
        )
    if facts.model_type == "llama" and own_code:
        return f"{OWN_CODE}: its classes are not those of a plain Llama; choose a checkpoint without auto_map"
    if _is_causal_qwen(facts):
        return (
            f"is a causal {facts.architectures[0]} without a mask token; causal models of this kind cannot be run, "
            "choose a Llama. If it is trained for masked diffusion, say so in family.json: "
            '{"family": "masked_diffusion", "kind": KIND, "mask_token_id": ID}'
        )
    return ""


def _names(facts: CheckpointFacts) -> str:
    """Returns what a folder calls itself: the two kinds of dLLM differ in nothing else that is published."""
    return f"{facts.path.name} {facts.config.get('_name_or_path', '')}".lower()


def _can_expand(facts: CheckpointFacts) -> bool:
    generation = read_object(facts.path / "generation_config.json")
    has_id = any(values.get("expand_token_id") is not None for values in (facts.config, generation))
    return has_id or "<|expand|>" in added_tokens(facts.path)


def _is_causal_qwen(facts: CheckpointFacts) -> bool:
    """Whether a model is of a causal class; Open-dCoder is of one too, and has a mask among its tokens."""
    is_qwen = any((facts.model_type, name) in _CAUSAL_QWEN for name in facts.architectures)
    return is_qwen and not any(kind.fits(facts) for kind in KINDS)
