"""A Hugging Face folder or a GGUF file of DiffusionGemma to a model, and a model to a folder.

Streams one tensor at a time straight into the model, so loading needs little more memory than the model itself.
Quantised weights are expanded on the way, or kept packed in modules that expand them for each use.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from dgemma_engine.checkpoint.gguf_config import read_config
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.checkpoint.gguf_weights import GgufWeights
from dgemma_engine.checkpoint.key_map import parameter_sources
from dgemma_engine.checkpoint.safetensors_reader import SINGLE
from dgemma_engine.checkpoint.tensor_files import Staging
from dgemma_engine.checkpoint.tensors import CheckpointWeights, PackedParameter, StoredWeights
from dgemma_engine.durable_files import put_in_place, write_whole
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.devices import is_small
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.quantization.block_layers import BlockExperts, BlockLinear
from dgemma_engine.quantization.quantized_linear import PackedExperts, PackedLinear, Scratch
from dgemma_engine.quantization.quantized_tensor import QuantisedTensor

_EXPERTS = ".experts"


class Residence(Enum):
    """How quantised weights lie in memory; plain weights are the same either way.

    `EXPANDED` as floats: as fast as a plain model, and as large. `PACKED` as they are stored: as small as the file, and
    expanded anew for every use (docs/decisions/0012), or multiplied as they are (0032).
    """

    EXPANDED = "expanded"
    PACKED = "packed"


def open_weights(path: Path, *, staging: Staging | None = None) -> tuple[ModelConfig, StoredWeights]:
    """Returns the dimensions of a model, and its parameters; reads no weight.

    Args:
        path: see `load_model`.
        staging: see `CheckpointReader`; a GGUF file needs none.

    Raises:
        CheckpointError: names the file, key or tensor that cannot be used, and what to do.
    """
    if path.is_dir():
        config = ModelConfig.load(path)
        return config, CheckpointWeights(path, config, staging=staging)
    file = GgufFile(path)
    config = read_config(file)
    return config, GgufWeights(file, config)


def load_model(
    path: Path,
    ops: Ops,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[int], None] = lambda _percent: None,
    residence: Residence | None = None,
) -> DiffusionGemma:
    """Reads a model.

    Args:
        path: a folder with `config.json` and `model.safetensors`, or shards with `model.safetensors.index.json`; or a
            GGUF file.
        ops: operations the model will call.
        device: where its weights go.
        dtype: what they are cast to.
        report: called with the percentage read so far.
        residence: of weights that are stored quantised; None expands those of a small model on a processor and
            leaves all others packed.

    Returns:
        The model in inference mode, without gradients. Projections whose weights stay packed are `PackedLinear` and
        `PackedExperts`, or `BlockLinear` and `BlockExperts` of a GGUF file.

    Raises:
        CheckpointError: names the file or key that is missing, damaged, of a wrong type or in contradiction to
            the configuration, and what to do; or the device cannot run the weights as they are stored.
    """
    config, stored = open_weights(path, staging=Staging(device) if device.type == "cuda" else None)
    with torch.device("meta"):
        model = DiffusionGemma(config, ops)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if residence is None:
        num_values = sum(shape.numel() for shape in shapes.values())
        residence = Residence.EXPANDED if is_small(num_values, device) else Residence.PACKED
    with stored as weights:
        staying = set[str]()
        if residence is Residence.PACKED:
            weights.require_device(device.type)
            staying = _staying_packed(weights)
        for parameter in staying:
            model.set_submodule(_module_of(parameter), nn.Identity())
        # Not `to_empty`, for which torch imports a third of a second of symbolic algebra.
        targets = {name: torch.empty(shapes[name], dtype=dtype, device=device) for name in model.state_dict()}
        model.load_state_dict(targets, assign=True)
        packed: dict[str, PackedParameter] = {}
        for number, source in enumerate(weights.sources):
            if source.parameter in staying:
                parameter = weights.packed(source, shapes[source.parameter])
                packed[source.parameter] = parameter.to(device) if isinstance(parameter, QuantisedTensor) else parameter
            else:
                weights.fill(targets[source.parameter].detach(), source)
            report(100 * (number + 1) // len(weights.sources))
    # Fused operations read packed weights as they are: nothing is ever expanded.
    _put_packed(model, packed, ops, Scratch(torch.device("meta") if ops.fused else device, dtype))
    return model.eval().requires_grad_(requires_grad=False)


def save_checkpoint(model: DiffusionGemma, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes `config.json` and `model.safetensors` as `transformers` lays them out.

    Each goes to a temporary file first: a full disk leaves the old one whole.

    Args:
        model: what to save.
        folder: made if missing.
        dtype: of the saved tensors.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    tensors: dict[str, Tensor] = {}
    for source in parameter_sources(model.config):
        parts = state[source.parameter].detach().to("cpu", dtype).split(list(source.rows))
        tensors |= {key: part.contiguous().clone() for key, part in zip(source.keys, parts, strict=True)}
    unfinished = folder / f".{SINGLE}.part"
    try:
        save_file(tensors, unfinished, metadata={"format": "pt"})
        # safetensors writes a file that only its owner may read; a model folder is as public as the folder it lies in.
        unfinished.chmod(0o644)
        put_in_place(unfinished, folder / SINGLE)
    except SafetensorError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{folder / SINGLE} cannot be written: {error}") from error
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    hf = model.config.to_hf() | {"dtype": str(dtype).removeprefix("torch.")}
    write_whole(folder / "config.json", (json.dumps(hf, indent=2) + "\n").encode())


def _module_of(parameter: str) -> str:
    """Returns the module that a matrix belongs to; experts' two matrices belong to one."""
    return parameter.rpartition(".")[0]


def _staying_packed(weights: StoredWeights) -> set[str]:
    """Returns the parameters of all modules that can be packed as a whole."""
    able: dict[str, list[bool]] = {}
    for source in weights.sources:
        able.setdefault(_module_of(source.parameter), []).append(weights.can_stay_packed(source))
    return {source.parameter for source in weights.sources if all(able[_module_of(source.parameter)])}


def _put_packed(model: DiffusionGemma, packed: dict[str, PackedParameter], ops: Ops, scratch: Scratch) -> None:
    for name in {_module_of(parameter): None for parameter in packed}:
        model.set_submodule(name, _packed_module(name, packed, ops, scratch))


def _packed_module(name: str, packed: dict[str, PackedParameter], ops: Ops, scratch: Scratch) -> nn.Module:
    if not name.endswith(_EXPERTS):
        weight = packed[f"{name}.weight"]
        return PackedLinear(weight, scratch) if isinstance(weight, QuantisedTensor) else BlockLinear(weight)
    gate_up, down = packed[f"{name}.gate_up_proj"], packed[f"{name}.down_proj"]
    if isinstance(gate_up, QuantisedTensor) and isinstance(down, QuantisedTensor):
        return PackedExperts(gate_up, down, ops, scratch)
    assert isinstance(gate_up, tuple) and isinstance(down, tuple)
    return BlockExperts(gate_up, down)
