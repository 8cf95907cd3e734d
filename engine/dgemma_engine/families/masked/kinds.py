"""The kinds of checkpoints of masked diffusion, as data: what each says of itself, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.tensor_names import HUGGING_FACE, LLADA, TensorNames
from dgemma_engine.tokenization.added_tokens import added_tokens, read_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind.

    Attributes:
        name: for `kind` in a sidecar file.
        model_type: `model_type` of `config.json`.
        architecture: its class; a configuration that names none is taken for it, unless `mask_token` is set.
        borrowed_architecture: a class of another family that it may name in place of its own; see `part_of_name`.
        mask_token: name of the added token that tells the kind from a causal model of the same class, and that is its
            mask; empty where the class tells.
        has_qkv_bias: whether queries, keys and values have a bias.
        has_qk_norm: whether queries and keys are normalised head by head.
        is_shifted: whether a state scores the NEXT position.
        block_tokens: of a block, where a token sees its own block and earlier ones only; 0 where it sees everything.
        begins_with_bos: whether a text began with the model's first token in training.
        surest_by: the measure by which the authors commit the surest positions.
        names: of its tensors.
        config_keys: its names for fields of a Llama's configuration, where they differ, by the Llama's name.
        required: values that fields of its configuration must have where they are set.
        part_of_name: part of the name of its folder, of its training run, or of its code, in lower case, where nothing
            else tells it from another kind.
        expand_token: name of the added token that becomes two masks; empty where rows keep their length.
        hole_tokens: names of the added tokens before the suffix, before the prefix and before the middle, of a
            prompt with its suffix first.
    """

    name: str
    model_type: str
    architecture: str
    borrowed_architecture: str = ""
    mask_token: str = ""
    has_qkv_bias: bool
    has_qk_norm: bool
    is_shifted: bool
    block_tokens: int = 0
    begins_with_bos: bool
    surest_by: Literal["entropy", "probability"]
    names: TensorNames = HUGGING_FACE
    config_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    required: Mapping[str, Any] = field(default_factory=dict[str, Any])
    part_of_name: str = ""
    expand_token: str = ""
    hole_tokens: tuple[str, str, str] | None = None

    def fits(self, facts: CheckpointFacts) -> bool:
        """Whether a folder is of this kind; of several that fit, the first counts."""
        if facts.gguf is not None or facts.model_type != self.model_type:
            return False
        if self.part_of_name not in _names(facts) or (self.expand_token and expand_id_of(facts, self) is None):
            return False
        if not self.mask_token:
            return facts.architectures in ((), (self.architecture,), (self.borrowed_architecture,))
        return facts.architectures == (self.architecture,) and self.mask_token in added_tokens(facts.path)


def expand_id_of(facts: CheckpointFacts, kind: Kind) -> Any:
    """Returns the id of the token that becomes two masks, as a file names it; None where none does.

    Raises:
        CheckpointError: a file is damaged.
    """
    generation = read_object(facts.path / "generation_config.json")
    for values in (facts.sidecar, facts.config, generation):
        if values.get("expand_token_id") is not None:
            return values["expand_token_id"]
    return added_tokens(facts.path).get(kind.expand_token)


def _names(facts: CheckpointFacts) -> str:
    """Returns what a checkpoint calls itself: its folder, the name it was trained under, its classes and its code."""
    own = (facts.config.get("_name_or_path", ""), *facts.architectures, facts.config.get("auto_map", ""))
    return " ".join(map(str, (facts.path.name, *own))).lower()


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

# Suffix first: what stands after a block is not seen from within it.
_QWEN_HOLE = ("<|fim_suffix|>", "<|fim_prefix|>", "<|fim_middle|>")
_SEED_HOLE = ("<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>")

KINDS: Sequence[Kind] = (
    # `tasks/train_torch.py` of Open-dLLM adds `<M>` where a tokenizer has no mask; the class stays Qwen2's.
    Kind(
        name="open-dcoder", model_type="qwen2", architecture="Qwen2ForCausalLM", mask_token="<M>", has_qkv_bias=True,
        has_qk_norm=False, is_shifted=True, begins_with_bos=False, surest_by="entropy", required=_NO_WINDOW,
    ),
    # The two kinds of dLLM differ only in their names.
    Kind(
        name="a2d-qwen2-bd3lm", model_type="a2d-qwen2", architecture="A2DQwen2LMHeadModel", part_of_name="bd3lm",
        has_qkv_bias=True, has_qk_norm=False, is_shifted=False, block_tokens=32, begins_with_bos=False,
        surest_by="probability", required=_NO_WINDOW, hole_tokens=_QWEN_HOLE,
    ),
    Kind(
        name="a2d-qwen3-bd3lm", model_type="a2d-qwen3", architecture="A2DQwen3LMHeadModel", part_of_name="bd3lm",
        has_qkv_bias=False, has_qk_norm=True, is_shifted=False, block_tokens=32, begins_with_bos=False,
        surest_by="probability", required=_NO_WINDOW, hole_tokens=_QWEN_HOLE,
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
    # Its classes are its own, or in an older upload those of a Llama with code of its own.
    Kind(
        name="stable-diffcoder", model_type="llama", architecture="StableDiffcoderForCausalLM",
        borrowed_architecture="LlamaForCausalLM", part_of_name="diffcoder", has_qkv_bias=False, has_qk_norm=False,
        is_shifted=False, block_tokens=4, begins_with_bos=False, surest_by="probability", hole_tokens=_SEED_HOLE,
    ),
    Kind(
        name="dreamon", model_type="Dream", architecture="DreamModel", expand_token="<|expand|>", has_qkv_bias=True,
        has_qk_norm=False, is_shifted=True, begins_with_bos=True, surest_by="entropy", required=_NO_WINDOW,
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
