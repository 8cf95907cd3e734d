"""Every tensor of the published DiffusionGemma checkpoints, with its type and shape, derived from published facts.

Run as a script it writes the lists beside this module, one JSON file a layout. Names are written out here and not taken
from the engine's key map, which is what the lists are compared with. `tests/engine/checkpoint/test_published_keys.py`
checks the lists against file sizes and tensor counts that were read from the published headers.

Sources: names, counts and shapes of the plain checkpoint: NVIDIA Megatron-Bridge, test of its DiffusionGemma bridge
(revision 0f28bc4 of google/diffusiongemma-26B-A4B-it, 1,047 tensors). What each maker quantised: `LAYOUTS`. GGUF: the
converter and the quantiser of llama.cpp (conversion/gemma.py, conversion/diffusion_gemma.py, src/llama-quant.cpp).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]
Tensors = dict[str, tuple[str, Shape]]
"""Type, as safetensors or ggml names it, and shape of each tensor."""

HERE = Path(__file__).parent
HIDDEN, DENSE, EXPERT, NUM_EXPERTS, VOCABULARY, NUM_LAYERS = 2_816, 2_112, 704, 128, 262_144, 30
NUM_HEADS, FULL_LAYERS = 16, (5, 11, 17, 23, 29)
VISION, VISION_INNER, VISION_LAYERS, VISION_HEAD, PATCH, POSITIONS = 1_152, 4_304, 27, 72, 16, 10_240
LAYER_NORMS = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    "post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2",
)  # fmt: skip
_EXPERT_SHAPES = {"gate_proj": (EXPERT, HIDDEN), "up_proj": (EXPERT, HIDDEN), "down_proj": (HIDDEN, EXPERT)}
_ITEM_BITS = {"BF16": 16, "F16": 16, "F32": 32, "I32": 32, "I64": 64, "U8": 8, "F8_E4M3": 8, "Q8_0": 8.5, "Q5_0": 5.5,
              "Q4_K": 4.5, "Q6_K": 6.5625}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One published checkpoint.

    Attributes:
        source: where its facts come from.
        tensors: returns them.
    """

    source: str
    tensors: Callable[[], Tensors]


def plain() -> Tensors:
    """Returns the tensors of google/diffusiongemma-26B-A4B-it."""
    decoder = {"embed_tokens.weight": (VOCABULARY, HIDDEN), "norm.weight": (HIDDEN,)}
    decoder |= {f"self_conditioning.{name}": shape for name, shape in _gated(DENSE).items()}
    decoder["self_conditioning.pre_norm.weight"] = (HIDDEN,)
    for layer in range(NUM_LAYERS):
        decoder |= {f"layers.{layer}.{name}": shape for name, shape in _layer(layer).items()}
    shapes: dict[str, Shape] = {f"model.decoder.{name}": shape for name, shape in decoder.items()}
    shapes |= {f"model.encoder.language_model.layers.{layer}.layer_scalar": (1,) for layer in range(NUM_LAYERS)}
    shapes |= {f"model.encoder.{name}": shape for name, shape in _vision().items()}
    return {name: ("BF16", shape) for name, shape in shapes.items()}


def gguf(kinds: Callable[[str, int], str]) -> Tensors:
    """Returns the tensors of a GGUF file.

    Args:
        kinds: returns the type of a matrix by its name in a layer and the layer; -1 for one that no layer has.
    """
    matrices: dict[tuple[str, int], Shape] = {("token_embd", -1): (VOCABULARY, HIDDEN)}
    floats: dict[str, Shape] = {"output_norm.weight": (HIDDEN,), "self_cond_pre_norm.weight": (HIDDEN,)}
    floats["rope_freqs.weight"] = (_head(FULL_LAYERS[0]) // 2,)
    for name, shape in _gated(DENSE).items():
        matrices[f"self_cond_{name.partition('_')[0]}", -1] = shape
    for layer in range(NUM_LAYERS):
        attention, head = _attention(layer), _head(layer)
        matrices |= {
            (f"attn_{name}", layer): attention[f"{name}_proj"] for name in "qkv" if f"{name}_proj" in attention
        }
        matrices["attn_output", layer] = attention["o_proj"]
        matrices |= {(f"ffn_{name.partition('_')[0]}", layer): shape for name, shape in _gated(DENSE).items()}
        matrices["ffn_gate_up_exps", layer] = (NUM_EXPERTS, 2 * EXPERT, HIDDEN)
        matrices["ffn_down_exps", layer] = (NUM_EXPERTS, HIDDEN, EXPERT)
        vectors: dict[str, Shape] = {"ffn_gate_inp.weight": (NUM_EXPERTS, HIDDEN), "ffn_gate_inp.scale": (HIDDEN,)}
        vectors |= {"ffn_down_exps.scale": (NUM_EXPERTS,), "attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        vectors |= dict.fromkeys(("layer_output_scale.weight", "enc_layer_output_scale.weight"), (1,))
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_ffw_norm_1", "pre_ffw_norm_2")
        vectors |= {f"{name}.weight": (HIDDEN,) for name in (*norms, "post_ffw_norm_2")}
        floats |= {f"blk.{layer}.{name}": shape for name, shape in vectors.items()}
    tensors: Tensors = {name: ("F32", shape) for name, shape in floats.items()}
    for (name, layer), shape in matrices.items():
        whole = f"{name}.weight" if layer < 0 else f"blk.{layer}.{name}.weight"
        tensors[whole] = (kinds(name, layer), shape)
    return tensors


def q4_k_m(name: str, layer: int) -> str:
    """Returns the type that the quantiser's mixture Q4_K_M gives a matrix; rows of blocks of 256 where they divide."""
    sliding = [one for one in range(NUM_LAYERS) if one not in FULL_LAYERS]
    if name == "token_embd":
        return "Q6_K"
    if name == "attn_v":
        return "Q6_K" if _gets_more(sliding.index(layer), len(sliding)) else "Q4_K"
    if name in ("ffn_down", "ffn_down_exps"):
        return "Q8_0" if _gets_more(layer, NUM_LAYERS) else "Q5_0"
    return "Q5_0" if name == "self_cond_down" else "Q4_K"


def _gets_more(index: int, count: int) -> bool:
    """Whether the quantiser keeps more bits: in the first and last eighth, and every third layer between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _quantised(parts: Callable[[Shape], dict[str, tuple[str, Shape]]], *kinds: str) -> Callable[[], Tensors]:
    """Returns the plain tensors with all matrices of some kinds in parts, experts one by one."""

    def tensors() -> Tensors:
        made: Tensors = {}
        for name, (dtype, shape) in plain().items():
            module = name.removesuffix(".weight")
            if "decoder.layers" not in name or not any(kind in name for kind in kinds) or "norm" in name:
                made[name] = (dtype, shape)
            elif "experts" not in name:
                made |= {f"{module}.{part}": stored for part, stored in parts(shape).items()}
            elif name.endswith("down_proj"):
                stack = name.rpartition(".")[0]
                for expert in range(NUM_EXPERTS):
                    for projection, one in _EXPERT_SHAPES.items():
                        whole = f"{stack}.{expert}.{projection}"
                        made |= {f"{whole}.{part}": stored for part, stored in parts(one).items()}
        return made

    return tensors


def _fp8(shape: Shape) -> Tensors:
    return {"weight": ("F8_E4M3", shape), "weight_scale": ("BF16", (shape[0], 1))}


def _nvfp4_packed(shape: Shape) -> Tensors:
    codes, scales = (shape[0], shape[1] // 2), (shape[0], shape[1] // 16)
    factors: Tensors = {"weight_global_scale": ("F32", (1,)), "input_global_scale": ("F32", ())}
    return {"weight_packed": ("U8", codes), "weight_scale": ("F8_E4M3", scales)} | factors


def _nvfp4_modelopt(shape: Shape) -> Tensors:
    codes, scales = (shape[0], shape[1] // 2), (shape[0], shape[1] // 16)
    factors: Tensors = {"weight_scale_2": ("F32", ()), "input_scale": ("F32", ())}
    return {"weight": ("U8", codes), "weight_scale": ("F8_E4M3", scales)} | factors


def _w4a16(shape: Shape) -> Tensors:
    codes, scales = (shape[0], shape[1] // 8), (shape[0], shape[1] // 32)
    return {"weight_packed": ("I32", codes), "weight_scale": ("BF16", scales), "weight_shape": ("I64", (2,))}


LAYOUTS: Mapping[str, Layout] = {
    "bf16": Layout(
        source="google/diffusiongemma-26B-A4B-it, revision 0f28bc4; 51.6476 GB by its headers",
        tensors=plain,
    ),
    "fp8_dynamic": Layout(
        source="RedHatAI/diffusiongemma-26B-A4B-it-FP8-dynamic: attention, MLP and experts; 27.1977 GB by header",
        tensors=_quantised(_fp8, "self_attn", ".mlp.", "experts"),
    ),
    "nvfp4_compressed_tensors": Layout(
        source="RedHatAI/diffusiongemma-26B-A4B-it-NVFP4: dense MLP and experts; 47,337 tensors by its header",
        tensors=_quantised(_nvfp4_packed, ".mlp.", "experts"),
    ),
    "nvfp4_modelopt": Layout(
        source="nvidia/diffusiongemma-26B-A4B-it-NVFP4: experts only; 18.8181 GB by its headers",
        tensors=_quantised(_nvfp4_modelopt, "experts"),
    ),
    "w4a16": Layout(
        source="cyankiwi/diffusiongemma-26B-A4B-it-AWQ-INT4: attention and experts in groups of 32; 35,777 tensors by "
        "its index. The types of scales and plain tensors are assumed",
        tensors=_quantised(_w4a16, "self_attn", "experts"),
    ),
    "gguf_q4_k_m": Layout(source="Q4_K_M of unsloth: 692 tensors by type", tensors=lambda: gguf(q4_k_m)),
    "gguf_q8_0": Layout(source="Q8_0 of unsloth: 26,878,831,328 bytes", tensors=lambda: gguf(lambda *_: "Q8_0")),
    "gguf_bf16": Layout(source="the same converter without a quantiser", tensors=lambda: gguf(lambda *_: "BF16")),
}


def num_bytes(dtype: str, shape: Shape) -> int:
    """Returns the size of a tensor."""
    return int(math.prod(shape) * _ITEM_BITS[dtype] / 8)


def compact(tensors: Tensors) -> list[dict[str, Any]]:
    """Returns the same with tensors that differ in layer and expert alone as one; layers and experts as ranges."""
    groups: dict[tuple[str, str, Shape], tuple[set[int], set[int]]] = {}
    for name, (dtype, shape) in tensors.items():
        numbers: list[set[int]] = []
        for kind in ("layers|blk", "experts"):
            found = re.search(rf"\b(?:{kind})\.(\d+)\.", name)
            numbers.append(set() if found is None else {int(found[1])})
        pattern = re.sub(r"\b(layers|blk)\.\d+\.", r"\1.{layer}.", name)
        pattern = re.sub(r"\bexperts\.\d+\.", "experts.{expert}.", pattern)
        of_group = groups.setdefault((pattern, dtype, shape), (set(), set()))
        for all_of_group, own in zip(of_group, numbers, strict=True):
            all_of_group.update(own)
    return [
        {"name": pattern, "type": dtype, "shape": list(shape), "layer": _ranges(layers), "expert": _ranges(experts)}
        for (pattern, dtype, shape), (layers, experts) in groups.items()
    ]


def read_list(layout: str) -> Tensors:
    """Returns the tensors of a committed list."""
    tensors: Tensors = {}
    for entry in json.loads((HERE / f"{layout}.json").read_text(encoding="utf-8"))["tensors"]:
        for layer in _numbers(entry["layer"]):
            for expert in _numbers(entry["expert"]):
                name = entry["name"].replace("{layer}", str(layer)).replace("{expert}", str(expert))
                tensors[name] = (entry["type"], tuple(entry["shape"]))
    return tensors


def text_of(layout: str) -> str:
    """Returns the content of a layout's file."""
    tensors = LAYOUTS[layout].tensors()
    total = sum(num_bytes(*stored) for stored in tensors.values())
    head = {"source": LAYOUTS[layout].source, "num_tensors": len(tensors), "num_bytes": total}
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in compact(tensors))
    return json.dumps(head, indent=1)[:-2] + f',\n "tensors": [\n{lines}\n ]\n}}\n'


def _layer(layer: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"self_attn.{name}.weight": shape for name, shape in _attention(layer).items()}
    shapes |= {f"self_attn.{name}_norm.weight": (_head(layer),) for name in "qk"}
    shapes |= {f"mlp.{name}": shape for name, shape in _gated(DENSE).items()}
    shapes |= {"router.proj.weight": (NUM_EXPERTS, HIDDEN), "router.scale": (HIDDEN,)}
    shapes |= {"router.per_expert_scale": (NUM_EXPERTS,), "layer_scalar": (1,)}
    shapes["experts.gate_up_proj"] = (NUM_EXPERTS, 2 * EXPERT, HIDDEN)
    shapes["experts.down_proj"] = (NUM_EXPERTS, HIDDEN, EXPERT)
    return shapes | {f"{name}.weight": (HIDDEN,) for name in LAYER_NORMS}


def _attention(layer: int) -> dict[str, Shape]:
    keys = 2 * _head(layer) if layer in FULL_LAYERS else 8 * _head(layer)
    shapes: dict[str, Shape] = {"q_proj": (NUM_HEADS * _head(layer), HIDDEN), "k_proj": (keys, HIDDEN)}
    if layer not in FULL_LAYERS:
        shapes["v_proj"] = (keys, HIDDEN)
    return shapes | {"o_proj": (HIDDEN, NUM_HEADS * _head(layer))}


def _head(layer: int) -> int:
    return 512 if layer in FULL_LAYERS else 256


def _gated(inner: int) -> dict[str, Shape]:
    gate_up = dict.fromkeys(("gate_proj.weight", "up_proj.weight"), (inner, HIDDEN))
    return gate_up | {"down_proj.weight": (HIDDEN, inner)}


def _vision() -> dict[str, Shape]:
    tower: dict[str, Shape] = {"patch_embedder.input_proj.weight": (VISION, 3 * PATCH**2)}
    tower["patch_embedder.position_embedding_table"] = (2, POSITIONS, VISION)
    tower |= dict.fromkeys(("std_bias", "std_scale"), (VISION,))
    layer: dict[str, Shape] = {f"{name}.weight": (VISION,) for name in LAYER_NORMS[:4]}
    layer |= {f"self_attn.{name}_proj.linear.weight": (VISION, VISION) for name in "qkvo"}
    layer |= {f"self_attn.{name}_norm.weight": (VISION_HEAD,) for name in "qk"}
    layer |= {f"mlp.{name}_proj.linear.weight": (VISION_INNER, VISION) for name in ("gate", "up")}
    layer["mlp.down_proj.linear.weight"] = (VISION, VISION_INNER)
    for number in range(VISION_LAYERS):
        tower |= {f"encoder.layers.{number}.{name}": shape for name, shape in layer.items()}
    vision = {f"vision_tower.{name}": shape for name, shape in tower.items()}
    return vision | {"embed_vision.embedding_projection.weight": (HIDDEN, VISION)}


def _ranges(numbers: set[int]) -> str:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _numbers(ranges: str) -> Iterator[int]:
    """Yields the numbers of a list of ranges; a single -1 for an empty list."""
    for part in ranges.split(",") if ranges else ["-1"]:
        first, _, last = part.partition("-") if ranges else (part, "", "")
        yield from range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    for layout in LAYOUTS:
        (HERE / f"{layout}.json").write_text(text_of(layout), encoding="utf-8")
