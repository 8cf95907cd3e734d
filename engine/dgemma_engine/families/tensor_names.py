"""Names of a decoder's tensors in a file, as tables: a parameter of a `Decoder` -> the tensors whose rows it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HEAD = "lm_head"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNames:
    """The names of one layout.

    Attributes:
        whole: of tensors outside the layers, by parameter; the head's may be missing in a file.
        layers: prefix of the layers; a number and the names of `parts` follow.
        parts: of tensors of a layer, by parameter; the rows of several are stacked in that order.
    """

    whole: Mapping[str, str]
    layers: str
    parts: Mapping[str, tuple[str, ...]]

    def keys(self, parameter: str) -> list[str]:
        """Returns the names of the tensors that make one parameter, such as `layers.3.qkv_proj.bias`."""
        name, _, kind = parameter.rpartition(".")
        if name in self.whole:
            return [f"{self.whole[name]}.{kind}"]
        _, number, part = name.split(".")
        return [f"{self.layers}.{number}.{key}.{kind}" for key in self.parts[part]]

    @property
    def head(self) -> str:
        """Name of the output matrix."""
        return f"{self.whole[HEAD]}.weight"


HUGGING_FACE = TensorNames(
    whole={"embed_tokens": "model.embed_tokens", "norm": "model.norm", HEAD: "lm_head"},
    layers="model.layers",
    parts={
        "input_layernorm": ("input_layernorm",),
        "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "q_norm": ("self_attn.q_norm",),
        "k_norm": ("self_attn.k_norm",),
        "o_proj": ("self_attn.o_proj",),
        "post_attention_layernorm": ("post_attention_layernorm",),
        "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
        "down_proj": ("mlp.down_proj",),
    },
)
"""Of `transformers`: Llama, Qwen2, Qwen3."""

LLADA = TensorNames(
    whole={
        "embed_tokens": "model.transformer.wte",
        "norm": "model.transformer.ln_f",
        HEAD: "model.transformer.ff_out",
    },
    layers="model.transformer.blocks",
    parts={
        "input_layernorm": ("attn_norm",),
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "o_proj": ("attn_out",),
        "post_attention_layernorm": ("ff_norm",),
        "gate_up_proj": ("ff_proj", "up_proj"),
        "down_proj": ("ff_out",),
    },
)
"""Of LLaDA, which are OLMo's."""
