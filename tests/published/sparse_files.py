"""Full-size checkpoints of the published layouts as sparse files: true headers, then zeros that take no disk space.

A file system that has no sparse files would need up to 52 GB, so `has_sparse_files` asks first.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgemma_engine.model_store.catalogue import CATALOGUE

from tests.gguf_files import header
from tests.published.key_lists import FULL_LAYERS, NUM_LAYERS, VOCABULARY, Tensors, num_bytes

GGML_TYPES = {"F32": 0, "Q5_0": 6, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30}
_NUM_FILES = {"bf16": 11, "nvfp4_modelopt": 2}
_FP8 = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
_NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
_INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}


def _compressed(layout: str, weights: dict[str, Any]) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}


_SCHEMES: Mapping[str, dict[str, Any]] = {
    "fp8_dynamic": _compressed("float-quantized", _FP8),
    "nvfp4_compressed_tensors": _compressed("nvfp4-pack-quantized", _NVFP4),
    "nvfp4_modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "w4a16": _compressed("pack-quantized", _INT4),
}
METADATA: Mapping[str, object] = {
    "general.architecture": "diffusion-gemma",
    "diffusion-gemma.block_count": NUM_LAYERS,
    "diffusion-gemma.context_length": 262_144,
    "diffusion-gemma.embedding_length": 2_816,
    "diffusion-gemma.feed_forward_length": 2_112,
    "diffusion-gemma.expert_feed_forward_length": 704,
    "diffusion-gemma.expert_count": 128,
    "diffusion-gemma.expert_used_count": 8,
    "diffusion-gemma.attention.head_count": 16,
    "diffusion-gemma.attention.head_count_kv": [2 if layer in FULL_LAYERS else 8 for layer in range(NUM_LAYERS)],
    "diffusion-gemma.attention.key_length": 512,
    "diffusion-gemma.attention.key_length_swa": 256,
    "diffusion-gemma.attention.layer_norm_rms_epsilon": 1e-6,
    "diffusion-gemma.attention.sliding_window": 1_024,
    "diffusion-gemma.attention.sliding_window_pattern": [layer not in FULL_LAYERS for layer in range(NUM_LAYERS)],
    "diffusion-gemma.attention.causal": False,
    "diffusion-gemma.rope.freq_base": 1e6,
    "diffusion-gemma.rope.freq_base_swa": 1e4,
    "diffusion-gemma.rope.dimension_count": 512,
    "diffusion-gemma.rope.dimension_count_swa": 256,
    "diffusion-gemma.final_logit_softcapping": 30.0,
    "diffusion.canvas_length": 256,
}


def has_sparse_files(folder: Path) -> bool:
    """Returns whether a large file of zeros takes no disk space in a folder."""
    path = folder / "probe"
    with path.open("wb") as file:
        file.truncate(2**26)
    blocks = path.stat().st_blocks
    path.unlink()
    return blocks < 1_000


def write_folder(folder: Path, layout: str, tensors: Tensors) -> Path:
    """Writes a Hugging Face folder with `config.json` and as many files of weights as were published."""
    folder.mkdir()
    config = dict(CATALOGUE["diffusiongemma"].config)
    if layout in _SCHEMES:
        config["quantization_config"] = _SCHEMES[layout]
    (folder / "config.json").write_text(json.dumps(config))
    num_files = _NUM_FILES.get(layout, 1)
    if num_files == 1:
        _write_safetensors(folder / "model.safetensors", tensors)
        return folder
    weight_map: dict[str, str] = {}
    for number in range(num_files):
        name = f"model-{number + 1:05}-of-{num_files:05}.safetensors"
        part = dict(list(tensors.items())[number::num_files])
        _write_safetensors(folder / name, part)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_gguf_file(path: Path, tensors: Tensors, *, metadata: Mapping[str, object] = METADATA) -> Path:
    """Writes a GGUF file with a vocabulary of the published size; only the factors of the rotation are there."""
    vocabulary: dict[str, object] = {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": [f"token{i}" for i in range(VOCABULARY)],
        "tokenizer.ggml.token_type": [1] * VOCABULARY,
        "tokenizer.ggml.merges": [f"token{i} token{i + 1}" for i in range(VOCABULARY)],
    }
    sizes = {name: (GGML_TYPES[dtype], shape, num_bytes(dtype, shape)) for name, (dtype, shape) in tensors.items()}
    whole = header({**metadata, **vocabulary}, sizes)
    total = sum(size + -size % 32 for _, _, size in sizes.values())
    with path.open("wb") as file:
        file.write(whole)
        offset = len(whole)
        for name, (_, shape, size) in sizes.items():
            if name == "rope_freqs.weight":
                file.seek(offset)
                rotated = shape[0] // 4
                file.write(struct.pack(f"<{shape[0]}f", *[1.0] * rotated, *[1e30] * (shape[0] - rotated)))
            offset += size + -size % 32
        file.truncate(len(whole) + total)
    return path


def _write_safetensors(path: Path, tensors: Tensors) -> None:
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + num_bytes(dtype, shape)
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(described).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
