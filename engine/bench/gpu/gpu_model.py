"""Models with random weights at any size, made on the device layer by layer, and `transformers`' one beside them.

A layer is drawn in 16 bits, quantised as `dgemma-engine quantize` does, packed for the kernels and freed, so that a
model that fits the card can be made there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from dgemma_engine.backends.cuda.layers import FusedLayer, FusedSelfConditioning
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.checkpoint.key_map import TensorKind
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.layers import Layer, SelfConditioning
from dgemma_engine.model.ops import Ops
from dgemma_engine.quantization.quantized_linear import PackedExperts, PackedLinear, Scratch
from dgemma_engine.quantization.quantized_tensor import Encoding, QuantisedTensor, quantise
from torch import Tensor, nn

SLIDING, FULL = "sliding_attention", "full_attention"
STD = 0.02
# Layers change the token's state strongly and predictions are sharp, so that a wrong mask changes tokens.
LAYER_GAIN, END_GAIN = 8.0, 4.0
# Matrices quantised at once, which bounds the memory of rounding.
ROWS_AT_ONCE = 2**15


def random_model(
    config: ModelConfig, ops: Ops, form: Format | None, device: torch.device, dtype: torch.dtype
) -> FusedModel:
    """Returns a model in a format, None for a plain one; the same numbers each time."""
    assert ops.fused is not None
    torch.manual_seed(1)
    embed = filled(nn.Embedding(config.vocab_size, config.hidden_size, device="meta"), device, dtype)
    assert isinstance(embed, nn.Embedding)
    embed.requires_grad_(requires_grad=False)
    with torch.device("meta"):
        begin = SelfConditioning(config, ops)
    model = FusedModel(
        config,
        ops,
        embed_tokens=embed,
        begin=FusedSelfConditioning(filled(begin, device, dtype), config, ops.fused, dtype),  # type: ignore[arg-type]
        layers=list(random_layers(config, ops, form, device, dtype)),
        norm_D=torch.full((config.hidden_size,), END_GAIN, dtype=dtype, device=device),
    )
    ops.fused.require(device, model.weight_formats)
    return model


def random_layers(
    config: ModelConfig, ops: Ops, form: Format | None, device: torch.device, dtype: torch.dtype
) -> Iterator[FusedLayer]:
    """Yields all layers, made one at a time."""
    assert ops.fused is not None
    scratch = Scratch(torch.device("meta"), dtype)
    for index in range(len(config.layer_kinds)):
        with torch.device("meta"):
            empty = Layer(config, index, ops)
        layer = filled(empty, device, dtype)
        assert isinstance(layer, Layer)
        layer.requires_grad_(requires_grad=False)
        for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            norm.weight.mul_(LAYER_GAIN)
        quantise_layer(layer, form, ops, scratch)
        yield FusedLayer(layer, config, ops.fused, dtype)


def filled(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Returns a module of the meta device with memory and random matrices; scales are near 1 and all differ."""
    module = module.to(dtype).to_empty(device=device)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.ndim >= 2:
                tensor.normal_(0.0, STD)
            else:
                tensor.normal_(1.0, 0.1)
    return module


def quantise_layer(layer: Layer, form: Format | None, ops: Ops, scratch: Scratch) -> None:
    """Puts the matrices of a format in place of the plain ones."""
    if form is None:
        return
    for kind, names in {
        TensorKind.ATTENTION: ("self_attn.qkv_proj", "self_attn.o_proj"),
        TensorKind.DENSE_MLP: ("mlp.gate_up_proj", "mlp.down_proj"),
    }.items():
        encoding = form.encoding(kind)
        for name in names if encoding is not None else ():
            linear = layer.get_submodule(name)
            assert isinstance(linear, nn.Linear) and encoding is not None
            layer.set_submodule(name, PackedLinear(quantised(linear.weight, encoding), scratch))
    encoding = form.encoding(TensorKind.EXPERTS)
    if encoding is not None:
        gate_up = quantised(layer.experts.gate_up_proj, encoding)
        down = quantised(layer.experts.down_proj, encoding)
        layer.set_submodule("experts", PackedExperts(gate_up, down, ops, scratch))


def quantised(weight: Tensor, encoding: Encoding) -> QuantisedTensor:
    """Returns a weight [.., N, K] in few bits, rounded a part at a time."""
    parts = [quantise(part, encoding, name="random") for part in weight.flatten(0, -2).split(ROWS_AT_ONCE)]
    whole = QuantisedTensor.concatenate(parts)
    return whole.unflatten_rows(weight.shape[0]) if weight.ndim == 3 else whole


class ReferenceModel:
    """`transformers`' model of the same configuration with random weights.

    Args:
        config: dimensions.
        device: where it runs.
        dtype: of its weights.
    """

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        from transformers.models.diffusion_gemma import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
        from transformers.utils import logging

        logging.set_verbosity_error()
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                model = DiffusionGemmaForBlockDiffusion(DiffusionGemmaConfig.from_dict(config.to_hf()))
        finally:
            torch.set_default_dtype(before)
        self._model: Any = model.eval()
        self._outside, self._device = config.vocab_size, device

    @torch.inference_mode()
    def encoded(self, prompt_1T: Tensor) -> Any:
        """Returns keys and values of a prompt's tokens but the last, as `generate` takes and changes them."""
        return self._model.model.encoder(input_ids=prompt_1T[:, :-1].to(self._device)).past_key_values

    def generate(self, prompt_1T: Tensor, kept: Any, canvas: int, num_steps: int) -> None:
        """Fills one canvas after a prompt that is `kept` but for its last token, in exactly so many steps."""
        from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

        self._model.config.canvas_length = canvas
        self._model.generate(
            input_ids=prompt_1T[:, -1:].to(self._device),
            past_key_values=kept,
            max_new_tokens=canvas,
            max_denoising_steps=num_steps,
            t_min=0.4,
            t_max=0.8,
            stability_threshold=10_000,
            confidence_threshold=0.1,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.1),
            eos_token_id=self._outside,
            pad_token_id=self._outside + 1,
        )


RELEASED_LAYERS = ([SLIDING] * 5 + [FULL]) * 5


def released(layer_types: Sequence[str] = RELEASED_LAYERS) -> ModelConfig:
    """Returns the released 26B checkpoint's dimensions, with other layers if some are given."""
    return dimensions(
        vocab_size=262_144, hidden_size=2_816, intermediate_size=2_112, moe_intermediate_size=704, num_experts=128,
        top_k_experts=8, layer_types=list(layer_types), num_attention_heads=16, num_key_value_heads=8,
        num_global_key_value_heads=2, head_dim=256, global_head_dim=512, sliding_window=1_024,
        max_position_embeddings=262_144, canvas_length=256,
    )  # fmt: skip


def tiny() -> ModelConfig:
    """Returns the same architecture in a few thousand weights."""
    return dimensions(
        vocab_size=320, hidden_size=64, intermediate_size=64, moe_intermediate_size=64, num_experts=4,
        top_k_experts=2, layer_types=[SLIDING, FULL], num_attention_heads=2, num_key_value_heads=1,
        num_global_key_value_heads=1, head_dim=32, global_head_dim=64, sliding_window=8, max_position_embeddings=512,
        canvas_length=16,
    )  # fmt: skip


def dimensions(*, canvas_length: int, **text: Any) -> ModelConfig:
    """Returns a configuration with the released checkpoint's rotary embeddings."""
    rope = {
        SLIDING: {"rope_theta": 1e4, "rope_type": "default"},
        FULL: {"rope_theta": 1e6, "partial_rotary_factor": 0.25, "rope_type": "proportional"},
    }
    text |= {"eos_token_id": [1], "rope_parameters": rope}
    return ModelConfig.from_hf({"model_type": "diffusion_gemma", "canvas_length": canvas_length, "text_config": text})
