"""A model folder to another of the same model in another number format: quantised, or plain again.

Reads and writes one tensor at a time, so memory is bounded by the largest tensor however large the model. What belongs
to no parameter of ours (the vision tower) is copied as it is; copies of tied weights are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgemma_engine.checkpoint.key_map import DECODER, ENCODER, ParameterSource
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.checkpoint.quantization_scheme import CONFIG_KEY
from dgemma_engine.checkpoint.quantized_layouts import stored_headers, stored_tensors
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.checkpoint.tensor_files import StoredTensor
from dgemma_engine.checkpoint.tensors import CheckpointWeights
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.quantization.quantized_tensor import Encoding, quantise
from dgemma_engine.tools.conversion.error_report import ErrorReport
from dgemma_engine.tools.conversion.output_folder import complete, new_folder, require_space, side_files
from dgemma_engine.tools.conversion.shard_writer import MOST_SHARD_BYTES, ShardPlan, ShardWriter

REPORT_NAME = "quantization_report.json"

_CHUNK_BYTES = 64 * 2**20
_STORED_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Some tensors of the new folder: what they will be, and the tensors themselves, row by row if need be."""

    headers: tuple[tuple[str, StoredTensor], ...]
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Sizes before and after a conversion, and what was not copied.

    Attributes:
        num_bytes: size of the new weights' files.
        num_bytes_before: size of the old ones.
        warning: what could not come along; None if nothing.
    """

    num_bytes: int
    num_bytes_before: int
    warning: str | None


def quantise_folder(
    source: Path,
    place: Path,
    form: Format,
    *,
    report: Callable[[int], None],
    most_shard_bytes: int = MOST_SHARD_BYTES,
) -> tuple[Converted, ErrorReport]:
    """Writes a quantised copy of a plain model folder.

    Args:
        source: the plain model.
        place: not there yet, or empty.
        form: of the copy.
        report: called with the percentage done.
        most_shard_bytes: size of a shard of the copy.

    Raises:
        CheckpointError: the source cannot be used or is quantised already.
        EngineError: the place cannot be used, or its disk is too small.
    """
    config, errors = ModelConfig.load(source), ErrorReport()
    with CheckpointWeights(source, config) as weights:
        if weights.scheme is not None:
            raise CheckpointError(f"{source}: is quantised already; quantise the model that it was made from")
        shapes = _shapes(config)
        parts = [_quantised(weights, item, shapes[item.parameter], form, errors) for item in weights.sources]
        hf = _hf_config(source) | {CONFIG_KEY: form.config_json()}
        finish = _report_writer(source, form, errors)
        return _write(weights, source, place, parts, hf, report, most_shard_bytes, finish), errors


def export_folder(
    source: Path,
    place: Path,
    dtype: torch.dtype,
    *,
    report: Callable[[int], None],
    most_shard_bytes: int = MOST_SHARD_BYTES,
) -> Converted:
    """Writes a plain copy of any model folder, as `transformers` lays it out.

    Args:
        source: the model, quantised or not.
        place: not there yet, or empty.
        dtype: of the copy's parameters: bfloat16 or float32.
        report: called with the percentage done.
        most_shard_bytes: size of a shard of the copy.

    Raises:
        CheckpointError: the source cannot be used.
        EngineError: the place cannot be used, or its disk is too small.
    """
    config = ModelConfig.load(source)
    with CheckpointWeights(source, config) as weights:
        shapes = _shapes(config)
        parts = [_expanded(weights, item, shapes[item.parameter], dtype) for item in weights.sources]
        hf = _hf_config(source) | {"dtype": str(dtype).removeprefix("torch.")}
        hf.pop(CONFIG_KEY, None)
        return _write(weights, source, place, parts, hf, report, most_shard_bytes, lambda _folder: None)


def _write(
    weights: CheckpointWeights,
    source: Path,
    place: Path,
    parts: list[_Part],
    config: dict[str, Any],
    report: Callable[[int], None],
    most_shard_bytes: int,
    finish: Callable[[Path], None],
) -> Converted:
    parts = [*parts, *_other_parts(weights)]
    plan = ShardPlan((item for part in parts for item in part.headers), most_bytes=most_shard_bytes)
    with new_folder(source, place) as folder:
        require_space(folder, plan.num_bytes + sum(path.stat().st_size for path in side_files(source)))
        with ShardWriter(folder, plan) as writer:
            for number, part in enumerate(parts):
                for key, tensor in part.tensors():
                    writer.write(key, tensor)
                report(100 * (number + 1) // len(parts))
        warning = complete(source, folder, config)
        finish(folder)
    return Converted(num_bytes=plan.num_bytes, num_bytes_before=weights.reader.num_bytes, warning=warning)


def _quantised(
    weights: CheckpointWeights, source: ParameterSource, shape: torch.Size, form: Format, errors: ErrorReport
) -> _Part:
    reader, encoding = weights.reader, form.encoding(source.kind)
    for key, rows in zip(source.keys, source.rows, strict=True):
        weights.require_plain(key, (rows, *shape[1:]))
    if encoding is None:
        headers = tuple((key, reader.header(key)) for key in source.keys)

        def kept() -> Iterator[tuple[str, Tensor]]:
            for key, _ in headers:
                for tensor in _chunks(reader, key):
                    errors.add_kept(source.kind, tensor.numel(), tensor.numel() * tensor.element_size())
                    yield key, tensor

        return _Part(headers=headers, tensors=kept)

    names = tuple(zip(source.matrices, source.matrix_rows, strict=True))
    headers = tuple(item for name, rows in names for item in stored_headers(name, encoding, (rows, shape[-1])))
    return _Part(headers=headers, tensors=lambda: _quantised_tensors(reader, source, encoding, errors))


def _quantised_tensors(
    reader: CheckpointReader, source: ParameterSource, encoding: Encoding, errors: ErrorReport
) -> Iterator[tuple[str, Tensor]]:
    names = iter(zip(source.matrices, source.matrix_rows, strict=True))
    for weight in _matrices_read_together(reader, source):
        # Projections that read one input share the tensor's scale, where there is one: kernels elsewhere fuse them.
        whole = quantise(weight, encoding, name=source.keys[0])
        start = 0
        while start < weight.shape[0]:
            name, rows = next(names)
            part = whole.rows(start, start + rows)
            errors.add(source.kind, name, weight[start : start + rows], part)
            headers = stored_headers(name, encoding, (rows, weight.shape[1]))
            yield from ((key, tensor) for (key, _), tensor in zip(headers, stored_tensors(part), strict=True))
            start += rows


def _matrices_read_together(reader: CheckpointReader, source: ParameterSource) -> Iterator[Tensor]:
    """Yields a parameter as matrices [N, K]: one for each expert, or all there is."""
    header = reader.header(source.keys[0])
    if len(header.shape) == 3:
        for i in range(header.shape[0]):
            yield reader.tensor(source.keys[0], slice(i, i + 1))[0].float()
    else:
        yield torch.cat([reader.tensor(key).float() for key in source.keys])


def _expanded(weights: CheckpointWeights, source: ParameterSource, shape: torch.Size, dtype: torch.dtype) -> _Part:
    headers = tuple(
        (key, StoredTensor(dtype=_STORED_NAMES[dtype], shape=(rows, *shape[1:])))
        for key, rows in zip(source.keys, source.rows, strict=True)
    )

    def tensors() -> Iterator[tuple[str, Tensor]]:
        whole = torch.empty(shape, dtype=dtype)
        weights.fill(whole, source)
        yield from zip(source.keys, whole.split(list(source.rows)), strict=True)

    return _Part(headers=headers, tensors=tensors)


def _other_parts(weights: CheckpointWeights) -> Iterator[_Part]:
    """Yields what is no parameter of ours, to be copied; copies of tied weights are no loss."""
    reader = weights.reader
    for key in sorted(reader):
        tied = key == "lm_head.weight" or (key.startswith(ENCODER) and DECODER + key.removeprefix(ENCODER) in reader)
        if weights.reads(key) or tied:
            continue
        yield _Part(
            headers=((key, reader.header(key)),),
            tensors=lambda key=key: ((key, tensor) for tensor in _chunks(reader, key)),
        )


def _chunks(reader: CheckpointReader, key: str) -> Iterator[Tensor]:
    """Yields a tensor as it is stored, some rows at a time."""
    header = reader.header(key)
    if not header.shape:
        yield reader.tensor(key)
        return
    row_bytes = max(1, 8 * torch.Size(header.shape[1:]).numel())
    step = max(1, _CHUNK_BYTES // row_bytes)
    for start in range(0, header.shape[0], step):
        yield reader.tensor(key, slice(start, min(start + step, header.shape[0])))


def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in DiffusionGemma(config, Ops.reference()).state_dict().items()}


def _hf_config(source: Path) -> dict[str, Any]:
    return json.loads((source / "config.json").read_text(encoding="utf-8"))


def _report_writer(source: Path, form: Format, errors: ErrorReport) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        values = {"format": form.value, "source": source.resolve().name, "kinds": errors.to_json()}
        (folder / REPORT_NAME).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    return write
