"""Written checkpoints are read by the library `compressed-tensors` with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.model.ops import Ops
from safetensors.torch import load_file

pytestmark = pytest.mark.numerical

compressed_tensors = pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")


def scheme_of(name: str, config: Any) -> Any:
    """The scheme whose target matches a module, by the library's own rules."""
    from compressed_tensors.utils.match import match_name

    found = [group for group in config.config_groups.values() if any(match_name(name, t) for t in group.targets)]
    assert len(found) <= 1, name
    return found[0] if found else None


@pytest.mark.parametrize("form", list(Format))
def test_library_reads_every_matrix(form: Format, make_quantised: Callable[..., Path]) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    folder = make_quantised(form)
    values = json.loads((folder / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(values)
    tensors = load_file(folder / "model.safetensors")
    modules = {key.rpartition(".")[0] for key in tensors if key.endswith(".weight_scale")}
    assert modules
    ours: dict[str, torch.Tensor] = {}
    model = load_model(folder, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)
    for i, layer in enumerate(model.layers):
        prefix = f"model.decoder.layers.{i}."
        for j, (gate_up, down) in enumerate(zip(layer.experts.gate_up_proj, layer.experts.down_proj, strict=True)):
            ours[f"{prefix}experts.{j}.gate_proj"], ours[f"{prefix}experts.{j}.up_proj"] = gate_up.chunk(2)
            ours[f"{prefix}experts.{j}.down_proj"] = down
        ours[f"{prefix}self_attn.o_proj"] = layer.self_attn.o_proj.weight
        ours[f"{prefix}mlp.down_proj"] = layer.mlp.down_proj.weight
    for name in modules:
        scheme = scheme_of(name, config)
        assert scheme is not None, f"{name}: quantised, and no target matches it"
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        parts = {key: tensors[f"{name}.{key}"] for key in compressor.compression_param_names(scheme)}
        theirs = compressor.decompress(parts, scheme)["weight"].float()
        if name in ours:
            # The library multiplies in the number format of the scales.
            assert torch.allclose(theirs, ours[name], rtol=2**-7, atol=1e-6), name
    assert modules >= ours.keys() - {name for name in ours if scheme_of(name, config) is None}
    for key in tensors:
        name = key.rpartition(".")[0]
        assert name in modules or scheme_of(name, config) is None, f"{name}: a target matches it, and it is plain"
