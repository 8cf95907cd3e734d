"""The kinds of checkpoints of masked diffusion, as data: what each says of itself, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.tensor_names import HUGGING_FACE, LLADA, TensorNames
from dgemma_engine.tokenization.added_tokens import added_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind.

    Attributes:
        name: for `kind` in a sidecar file.
        model_type: `model_type` of `config.json`.
        architecture: its class; a configuration that names none is taken for it, unless `mask_token` is asked for.
        mask_token: name of the added token that tells the kind from a causal model of the same class, and that is its
            mask; empty where the class tells.
        has_qkv_bias: whether queries, keys and values have a bias.
        has_qk_norm: whether queries and keys are normalised head by head.
        is_shifted: whether a state scores the NEXT position.
        begins_with_bos: whether a text began with the model's first token in training.
        surest_by: what the authors commit by.
        names: of its tensors.
        config_keys: what its configuration calls the fields of a Llama's, where it has names of its own.
        required: values that its configuration must have where it gives them.
    """

    name: str
    model_type: str
    architecture: str
    mask_token: str = ""
    has_qkv_bias: bool
    has_qk_norm: bool
    is_shifted: bool
    begins_with_bos: bool
    surest_by: Literal["entropy", "probability"]
    names: TensorNames = HUGGING_FACE
    config_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    required: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def fits(self, facts: CheckpointFacts) -> bool:
        """Whether a folder is of this kind."""
        if facts.gguf is not None or facts.model_type != self.model_type:
            return False
        if not self.mask_token:
            return facts.architectures in ((), (self.architecture,))
        return facts.architectures == (self.architecture,) and self.mask_token in added_tokens(facts.path)


_NO_WINDOW = MappingProxyType({"use_sliding_window": False})
_LLADA_KEYS = MappingProxyType(
    {
        "hidden_size": "d_model",
        "intermediate_size": "mlp_hidden_size",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "max_position_embeddings": "max_sequence_length",
        "hidden_act": "activation_type",
        "tie_word_embeddings": "weight_tying",
    }
)
_LLADA_VALUES = MappingProxyType(
    {
        "block_type": "llama",
        "block_group_size": 1,
        "layer_norm_type": "rms",
        "rope": True,
        "alibi": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "bias_for_layer_norm": False,
        "attention_layer_norm": False,
        "input_emb_norm": False,
        "scale_logits": False,
    }
)

KINDS: Sequence[Kind] = (
    # `tasks/train_torch.py` of Open-dLLM adds `<M>` where a tokenizer has no mask; the class stays Qwen2's.
    Kind(
        name="open-dcoder", model_type="qwen2", architecture="Qwen2ForCausalLM", mask_token="<M>", has_qkv_bias=True,
        has_qk_norm=False, is_shifted=True, begins_with_bos=False, surest_by="entropy", required=_NO_WINDOW,
    ),
    # `dllm/pipelines/a2d` of dLLM changes the class of a causal model, and no weight.
    Kind(
        name="a2d-qwen2", model_type="a2d-qwen2", architecture="A2DQwen2LMHeadModel", has_qkv_bias=True,
        has_qk_norm=False, is_shifted=False, begins_with_bos=False, surest_by="probability", required=_NO_WINDOW,
    ),
    Kind(
        name="a2d-qwen3", model_type="a2d-qwen3", architecture="A2DQwen3LMHeadModel", has_qkv_bias=False,
        has_qk_norm=True, is_shifted=False, begins_with_bos=False, surest_by="probability", required=_NO_WINDOW,
    ),
    Kind(
        name="a2d-llama", model_type="a2d-llama", architecture="A2DLlamaLMHeadModel", has_qkv_bias=False,
        has_qk_norm=False, is_shifted=False, begins_with_bos=False, surest_by="probability",
    ),
    # Dream, Dream-Coder, DiffuCoder.
    Kind(
        name="dream", model_type="Dream", architecture="DreamModel", has_qkv_bias=True, has_qk_norm=False,
        is_shifted=True, begins_with_bos=True, surest_by="entropy", required=_NO_WINDOW,
    ),
    Kind(
        name="llada", model_type="llada", architecture="LLaDAModelLM", has_qkv_bias=False, has_qk_norm=False,
        is_shifted=False, begins_with_bos=True, surest_by="probability", names=LLADA, config_keys=_LLADA_KEYS,
        required=_LLADA_VALUES,
    ),
)  # fmt: skip
