"""The models of the Hugging Face hub that have a short name, with the dimensions that their pages give.

Sizes are those of the pages where they were seen, else of the weights in bfloat16; what an engine needs is what
`dgemma-engine plan` computes for a card. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dgemma_engine.model_store.entry import MB, Entry

_GEMMA: Mapping[str, Any] = {
    "model_type": "diffusion_gemma",
    "canvas_length": 256,
    "text_config": {
        "vocab_size": 262_144,
        "hidden_size": 2_816,
        "intermediate_size": 2_112,
        "moe_intermediate_size": 704,
        "num_experts": 128,
        "top_k_experts": 8,
        "num_hidden_layers": 30,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 5,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": 1_024,
        "max_position_embeddings": 262_144,
        "eos_token_id": 1,
        "rope_parameters": {
            "full_attention": {
                "rope_theta": 1e6,
                "partial_rotary_factor": 0.25,
                "rope_type": "proportional",
            },
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
    },
}
_QWEN_05B: Mapping[str, Any] = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4_864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32_768, "bos_token_id": 151_643, "eos_token_id": 151_643, "tie_word_embeddings": False,
}  # fmt: skip
_A2D_QWEN2 = _QWEN_05B | {"model_type": "a2d-qwen2", "architectures": ["A2DQwen2LMHeadModel"]}
_A2D_QWEN3: Mapping[str, Any] = {
    "model_type": "a2d-qwen3", "architectures": ["A2DQwen3LMHeadModel"], "vocab_size": 151_936, "hidden_size": 1_024,
    "intermediate_size": 3_072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "max_position_embeddings": 40_960,
    "bos_token_id": 151_643, "eos_token_id": 151_645, "tie_word_embeddings": False,
}  # fmt: skip
_DREAM: Mapping[str, Any] = {
    "model_type": "Dream", "architectures": ["DreamModel"], "vocab_size": 152_064, "hidden_size": 3_584,
    "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "rope_theta": 1e6, "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768, "mask_token_id": 151_666,
    "bos_token_id": 151_665, "eos_token_id": 151_643, "tie_word_embeddings": False,
}  # fmt: skip
_LLADA: Mapping[str, Any] = {
    "model_type": "llada", "architectures": ["LLaDAModelLM"], "vocab_size": 126_464, "embedding_size": 126_464,
    "d_model": 4_096, "mlp_hidden_size": 12_288, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32,
    "max_sequence_length": 4_096, "rope_theta": 5e5, "rms_norm_eps": 1e-5, "weight_tying": False,
    "bos_token_id": 126_080, "eos_token_id": 126_081, "mask_token_id": 126_336,
}  # fmt: skip
_STABLE_DIFFCODER: Mapping[str, Any] = {
    "model_type": "llama", "architectures": ["StableDiffcoderForCausalLM"], "vocab_size": 155_136,
    "hidden_size": 4_096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "rope_theta": 5e5, "rms_norm_eps": 1e-6, "max_position_embeddings": 8_192,
    "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip


def _masked(kind: str) -> Mapping[str, Any]:
    """Returns the sidecar that names a kind before its folder is there."""
    return {"family": "masked_diffusion", "kind": kind}


HUB_ENTRIES: Sequence[Entry] = (
    Entry(
        name="diffusiongemma", title="DiffusionGemma 26B-A4B, quantised to NVFP4", num_bytes=18_900 * MB,
        licence="Apache-2.0", memory_bytes=20_700 * MB, repo="nvidia/diffusiongemma-26B-A4B-it-NVFP4", config=_GEMMA,
        weight_format="nvfp4",
    ),
    Entry(
        name="diffusiongemma-fp8", title="DiffusionGemma 26B-A4B, quantised to FP8", num_bytes=27_200 * MB,
        licence="see its page", memory_bytes=29_100 * MB, repo="RedHatAI/diffusiongemma-26B-A4B-it-FP8-dynamic",
        config=_GEMMA, weight_format="fp8",
    ),
    Entry(
        name="open-dcoder", title="Open-dCoder 0.5B", num_bytes=990 * MB, licence="see its page",
        memory_bytes=2_500 * MB, repo="fredzzp/open-dcoder-0.5B", family=_masked("open-dcoder"),
        config=_QWEN_05B | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True},
    ),
    Entry(
        name="dllm-coder", title="Qwen2.5-Coder 0.5B of dLLM, mdlm", num_bytes=1_280 * MB, licence="Apache-2.0",
        memory_bytes=2_770 * MB, repo="dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1",
        family=_masked("a2d-qwen2"), config=_A2D_QWEN2,
    ),
    Entry(
        name="dllm-coder-blocks", title="Qwen2.5-Coder 0.5B of dLLM, bd3lm", num_bytes=1_280 * MB,
        licence="Apache-2.0", memory_bytes=3_845 * MB, repo="dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1",
        family=_masked("a2d-qwen2-bd3lm"), config=_A2D_QWEN2,
    ),
    Entry(
        name="dllm-qwen3", title="Qwen3 0.6B of dLLM, mdlm", num_bytes=1_500 * MB, licence="Apache-2.0",
        memory_bytes=3_000 * MB, repo="dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1", family=_masked("a2d-qwen3"),
        config=_A2D_QWEN3,
    ),
    Entry(
        name="dllm-qwen3-blocks", title="Qwen3 0.6B of dLLM, bd3lm", num_bytes=1_500 * MB, licence="Apache-2.0",
        memory_bytes=4_072 * MB, repo="dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1", family=_masked("a2d-qwen3-bd3lm"),
        config=_A2D_QWEN3,
    ),
    Entry(
        name="dream", title="Dream 7B, base", num_bytes=15_200 * MB, licence="Apache-2.0", memory_bytes=17_050 * MB,
        repo="Dream-org/Dream-v0-Base-7B", config=_DREAM,
    ),
    Entry(
        name="dream-coder", title="Dream-Coder 7B, base", num_bytes=15_200 * MB, licence="Apache-2.0",
        memory_bytes=17_050 * MB, repo="Dream-org/Dream-Coder-v0-Base-7B", config=_DREAM,
    ),
    Entry(
        name="diffucoder", title="DiffuCoder 7B, base", num_bytes=15_200 * MB, licence="see its page",
        memory_bytes=17_050 * MB, repo="apple/DiffuCoder-7B-Base", config=_DREAM | {"bos_token_id": 151_643},
    ),
    Entry(
        name="dreamon", title="DreamOn 7B", num_bytes=15_200 * MB, licence="see its page", memory_bytes=17_050 * MB,
        repo="Dream-org/DreamOn-v0-7B", family=_masked("dreamon"), config=_DREAM,
    ),
    Entry(
        name="llada", title="LLaDA 8B, base", num_bytes=16_000 * MB, licence="MIT", memory_bytes=17_660 * MB,
        repo="GSAI-ML/LLaDA-8B-Base", config=_LLADA,
    ),
    Entry(
        name="stable-diffcoder", title="Stable-DiffCoder 8B, base", num_bytes=16_500 * MB, licence="MIT",
        memory_bytes=19_376 * MB, repo="ByteDance-Seed/Stable-DiffCoder-8B-Base", config=_STABLE_DIFFCODER,
    ),
)  # fmt: skip
"""Of the families that can be run, and of the quantised DiffusionGemmas."""
