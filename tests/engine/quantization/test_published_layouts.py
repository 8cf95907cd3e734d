"""Quantised checkpoints in published layouts, written here from the description of each; and unsupported ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import Residence, load_model
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.ops import Ops
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")
LEVELS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
INT4_32 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}


def compressed(layout: str, weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}, **more}


def fp8_dynamic(name: str, seed: torch.Generator, rows: int, columns: int) -> tuple[Tensors, torch.Tensor]:
    """RedHatAI FP8-dynamic."""
    codes = (torch.randn(rows, columns, generator=seed) * 100).to(torch.float8_e4m3fn)
    scale = (torch.rand(rows, 1, generator=seed) * 0.01).to(torch.bfloat16)
    return {f"{name}.weight": codes, f"{name}.weight_scale": scale}, codes.float() * scale.float()


def e2m1(seed: torch.Generator, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.randint(0, 16, (rows, columns), generator=seed)
    values = torch.tensor(LEVELS)[codes % 8] * torch.where(codes >= 8, -1.0, 1.0)
    low, high = codes[:, 0::2], codes[:, 1::2]
    return (low + 16 * high).to(torch.uint8), values


def nvfp4_compressed(name: str, seed: torch.Generator, rows: int, columns: int) -> tuple[Tensors, torch.Tensor]:
    """RedHatAI NVFP4: the scale of the tensor divides."""
    packed, values = e2m1(seed, rows, columns)
    scale = (torch.rand(rows, columns // 16, generator=seed) * 400 + 1).to(torch.float8_e4m3fn)
    divisor = torch.rand(1, generator=seed) * 5000 + 1000
    exact = values * (scale.float() * (1 / divisor)).repeat_interleave(16, 1)
    parts = {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": divisor}
    parts["input_global_scale"] = torch.tensor([300.0])
    return {f"{name}.{key}": value for key, value in parts.items()}, exact


def nvfp4_modelopt(name: str, seed: torch.Generator, rows: int, columns: int) -> tuple[Tensors, torch.Tensor]:
    """NVIDIA's NVFP4: the scale of the tensor multiplies, and has no dimension."""
    packed, values = e2m1(seed, rows, columns)
    scale = (torch.rand(rows, columns // 16, generator=seed) * 400 + 1).to(torch.float8_e4m3fn)
    factor = torch.rand((), generator=seed) * 1e-3
    exact = values * (scale.float() * factor).repeat_interleave(16, 1)
    parts = {"weight": packed, "weight_scale": scale, "weight_scale_2": factor, "input_scale": torch.tensor(0.02)}
    return {f"{name}.{key}": value for key, value in parts.items()}, exact


def int4_groups_of_32(name: str, seed: torch.Generator, rows: int, columns: int) -> tuple[Tensors, torch.Tensor]:
    """A W4A16 checkpoint with another group size than ours, scales in half precision."""
    levels = torch.randint(-8, 8, (rows, columns), generator=seed)
    words = ((levels + 8).view(rows, -1, 8) << torch.arange(0, 32, 4)).sum(-1)
    packed = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    scale = (torch.rand(rows, columns // 32, generator=seed) * 0.1).to(torch.float16)
    exact = levels * scale.float().repeat_interleave(32, 1)
    parts = {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.tensor([rows, columns])}
    return {f"{name}.{key}": value for key, value in parts.items()}, exact


def int4_gptq(name: str, seed: torch.Generator, rows: int, columns: int) -> tuple[Tensors, torch.Tensor]:
    """Intel's AutoRound: GPTQ's packing, transposed, with 7 for the zero point 8; groups of 32 here."""
    levels = torch.randint(-8, 8, (rows, columns), generator=seed)
    words = ((levels + 8).t().reshape(-1, 8, rows) << torch.arange(0, 32, 4)[:, None]).sum(1)
    packed = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    scale = (torch.rand(rows, columns // 32, generator=seed) * 0.1).to(torch.float16)
    exact = levels * scale.float().repeat_interleave(32, 1)
    zeros = torch.full((columns // 32, rows // 8), 0x77777777, dtype=torch.int32)
    groups = (torch.arange(columns) // 32).to(torch.int32)
    parts = {"qweight": packed, "scales": scale.t().contiguous(), "qzeros": zeros, "g_idx": groups}
    return {f"{name}.{key}": value for key, value in parts.items()}, exact


AUTO_ROUND = {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4, "group_size": 32,
              "sym": True, "data_type": "int"}  # fmt: skip
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
EVERYTHING = ("self_attn", ".mlp.", "experts")
LAYOUTS = {
    "RedHatAI FP8-dynamic": (fp8_dynamic, compressed("float-quantized", FP8), EVERYTHING),
    "RedHatAI NVFP4": (nvfp4_compressed, compressed("nvfp4-pack-quantized", NVFP4), EVERYTHING),
    "nvidia NVFP4": (nvfp4_modelopt, {"quant_method": "modelopt", "quant_algo": "NVFP4"}, ("experts",)),
    "AutoRound": (int4_gptq, AUTO_ROUND, EVERYTHING),
    "GPTQ": (int4_gptq, GPTQ, ("experts",)),
    "W4A16": (int4_groups_of_32, compressed("pack-quantized", INT4_32), EVERYTHING),
}


def publish(plain: Path, layout: str) -> Tensors:
    """Turns a plain checkpoint into one of a published layout; returns the weights that must be read from it."""
    write, scheme, kinds = LAYOUTS[layout]
    seed = torch.Generator().manual_seed(2)
    written: Tensors = {}
    exact: Tensors = {}
    for key, tensor in load_file(plain / "model.safetensors").items():
        if tensor.ndim < 2 or "decoder.layers" not in key or not any(kind in key for kind in kinds) or "norm" in key:
            written[key] = exact[key] = tensor
            continue
        if "experts" not in key:
            parts, exact[key] = write(key.removesuffix(".weight"), seed, *tensor.shape)
            written |= parts
            continue
        whole: list[torch.Tensor] = []
        for i in range(tensor.shape[0]):
            names = ("gate_proj", "up_proj") if "gate_up" in key else ("down_proj",)
            for name in names:
                base = f"{key.rpartition('.')[0]}.{i}.{name}"
                parts, matrix = write(base, seed, tensor.shape[1] // len(names), tensor.shape[2])
                written |= parts
                whole.append(matrix)
        exact[key] = torch.cat(whole).view_as(tensor)
    save_file(written, plain / "model.safetensors", metadata={"format": "pt"})
    change_config(plain, quantization_config=scheme)
    return exact


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load(folder: Path, residence: Residence = Residence.EXPANDED) -> Any:
    return load_model(folder, Ops.reference(), device=CPU, dtype=torch.float32, residence=residence)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layout_is_read_exactly(layout: str, make_plain: Callable[..., Path]) -> None:
    folder = make_plain()
    exact = publish(folder, layout)
    model = load(folder)
    for i, layer in enumerate(model.layers):
        prefix = f"model.decoder.layers.{i}."
        names = ("q_proj", "k_proj", "v_proj") if f"{prefix}self_attn.v_proj.weight" in exact else ("q_proj", "k_proj")
        qkv = torch.cat([exact[f"{prefix}self_attn.{name}.weight"].float() for name in names])
        assert torch.equal(layer.self_attn.qkv_proj.weight, qkv)
        assert torch.equal(layer.mlp.down_proj.weight, exact[f"{prefix}mlp.down_proj.weight"].float())
        assert torch.equal(layer.experts.gate_up_proj, exact[f"{prefix}experts.gate_up_proj"].float())
        assert torch.equal(layer.experts.down_proj, exact[f"{prefix}experts.down_proj"].float())
        assert torch.equal(layer.router.proj.weight, exact[f"{prefix}router.proj.weight"].float())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layout_can_stay_packed(layout: str, make_plain: Callable[..., Path]) -> None:
    folder = make_plain()
    exact = publish(folder, layout)
    model = load(folder, Residence.PACKED)
    for i, layer in enumerate(model.layers):
        gate_up = exact[f"model.decoder.layers.{i}.experts.gate_up_proj"].float()
        assert torch.equal(layer.experts.gate_up.dequantise(torch.float32), gate_up)


def test_modelopt_scheme_in_a_file_of_its_own_is_read(make_plain: Callable[..., Path]) -> None:
    folder = make_plain()
    publish(folder, "nvidia NVFP4")
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"quantised in a way that its config\.json does not tell"):
        load(folder)
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    load(folder)


def test_experts_that_stayed_plain_are_read(make_plain: Callable[..., Path]) -> None:
    """One expert kept out of quantisation: its matrices are plain, the others are not."""
    folder = make_plain()
    exact = publish(folder, "RedHatAI FP8-dynamic")
    tensors = load_file(folder / "model.safetensors")
    base = "model.decoder.layers.0.experts.1.down_proj"
    del tensors[f"{base}.weight_scale"]
    tensors[f"{base}.weight"] = torch.ones(tensors[f"{base}.weight"].shape, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors")
    for residence in Residence:
        down = load(folder, residence).layers[0].experts.down_proj
        assert torch.equal(down[1], torch.ones_like(down[1]))
        assert torch.equal(down[0], exact["model.decoder.layers.0.experts.down_proj"][0])


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"quant_method": "awq", "bits": 4}, "quant_method='awq' is not supported; use the bf16 checkpoint"),
        (GPTQ | {"bits": 3}, r"gptq with symmetric weights of 3 bits \(int\) is not supported"),
        (GPTQ | {"sym": False}, "gptq with asymmetric weights of 4 bits"),
        (GPTQ | {"desc_act": True}, r"gptq with weights ordered by activation \(desc_act\) is not supported"),
        (GPTQ | {"group_size": -1}, "group_size=-1 must be at least 8"),
        (AUTO_ROUND | {"packing_format": "auto_round:auto_awq"}, "packing_format='auto_round:auto_awq' of auto-round"),
        (AUTO_ROUND | {"data_type": "mx_fp"}, r"auto-round with symmetric weights of 4 bits \(mx_fp\)"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "quant_algo='FP8' of ModelOpt is not supported"),
        (compressed("mxfp4-pack-quantized", {}), "format='mxfp4-pack-quantized' is not supported"),
        (compressed("pack-quantized", INT4_32 | {"symmetric": False}), "group_0: asymmetric weights"),
        (compressed("pack-quantized", INT4_32 | {"actorder": "group"}), "group_0: weights ordered by activation"),
        (compressed("pack-quantized", INT4_32 | {"num_bits": 3}), "pack-quantized with 3-bit int weights per group"),
        (
            compressed("float-quantized", FP8 | {"strategy": "block"}),
            "float-quantized with 8-bit float weights per block",
        ),
        (compressed("nvfp4-pack-quantized", NVFP4 | {"group_size": 32}), r"weights per tensor_group \(size=32\)"),
    ],
)
def test_unknown_quantisation_is_named(scheme: dict[str, Any], message: str, make_plain: Callable[..., Path]) -> None:
    folder = make_plain()
    change_config(folder, quantization_config=scheme)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


GPTQ_BASE = "model.decoder.layers.0.experts.1.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[f"{GPTQ_BASE}.qzeros"].fill_(0x77777778), "qzeros: zero points that differ"),
        (
            lambda t: t[f"{GPTQ_BASE}.g_idx"].copy_(t[f"{GPTQ_BASE}.g_idx"].flip(0)),
            "g_idx: weights ordered by activation",
        ),
        (lambda t: t.pop(f"{GPTQ_BASE}.scales"), "scales: missing from the weights; download"),
        (
            lambda t: t.update({f"{GPTQ_BASE}.qweight": torch.zeros(8, 64, dtype=torch.int32)}),
            r"qweight: shape \[8, 64\] in the weights, \[16, 64\] by config",
        ),
    ],
)
@pytest.mark.parametrize("residence", list(Residence))
def test_damaged_gptq_packing_is_named(
    change: Callable[[Tensors], object], message: str, residence: Residence, make_plain: Callable[..., Path]
) -> None:
    folder = make_plain()
    publish(folder, "GPTQ")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load(folder, residence)


def test_second_version_of_gptq_stores_the_zero_point_itself(make_plain: Callable[..., Path]) -> None:
    folder = make_plain()
    exact = publish(folder, "GPTQ")
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in tensors.items():
        if key.endswith("qzeros"):
            tensor.fill_(0x88888888 - 2**32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="zero points that differ"):
        load(folder)
    change_config(folder, quantization_config=GPTQ | {"checkpoint_format": "gptq_v2"})
    down = exact["model.decoder.layers.0.experts.down_proj"].float()
    assert torch.equal(load(folder).layers[0].experts.down_proj, down)


def test_gptq_packing_that_contradicts_the_configuration_is_reported(make_plain: Callable[..., Path]) -> None:
    folder = make_plain()
    publish(folder, "GPTQ")
    change_config(folder, quantization_config=compressed("pack-quantized", INT4_32))
    with pytest.raises(CheckpointError, match=r"qweight: packed as GPTQ does, which config\.json does not say"):
        load(folder)


BASE = "model.decoder.layers.0.experts.2.up_proj"


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        (Format.INT4, lambda t: t.pop(f"{BASE}.weight_scale"), "weight_scale: missing from the weights; download"),
        (Format.INT4, lambda t: t.pop(f"{BASE}.weight_packed"), "weight: missing from the weights; download"),
        (Format.NVFP4, lambda t: t.pop(f"{BASE}.weight_global_scale"), "weight_global_scale: missing"),
        (
            Format.NVFP4,
            lambda t: t.update({f"{BASE}.weight_global_scale": torch.zeros(1)}),
            "scale for the whole tensor is not one finite number",
        ),
        (
            Format.INT4,
            lambda t: t.update({f"{BASE}.weight_scale": torch.ones(64, 9, dtype=torch.bfloat16)}),
            r"weight_scale: shape \[64, 9\] in the weights, \[64, 2\] by config\.json",
        ),
        (
            Format.INT8,
            lambda t: t.update({f"{BASE}.weight_packed": torch.zeros(64, 7, dtype=torch.int32)}),
            r"weight_packed: shape \[64, 7\] in the weights, which config\.json does not describe",
        ),
        (
            Format.FP8,
            lambda t: t.update({f"{BASE}.weight_scale": torch.ones(64, 1, dtype=torch.int32)}),
            "weight_scale: stored as I32, only BF16, F16, F32 can be loaded",
        ),
        (
            Format.INT8,
            lambda t: t.update({f"{BASE}.weight_zero_point": torch.zeros(1)}),
            "weight_zero_point: this checkpoint is quantised in a way that .* not known here",
        ),
    ],
)
@pytest.mark.parametrize("residence", list(Residence))
def test_damage_is_named(
    form: Format,
    change: Callable[[Tensors], object],
    message: str,
    residence: Residence,
    make_quantised: Callable[..., Path],
) -> None:
    folder = make_quantised(form)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load(folder, residence)
