"""One matrix of a checkpoint between its keys and a `QuantisedTensor`, in the layouts the field uses.

    int8, int4   NAME.weight_packed int32, .weight_scale, .weight_shape       compressed-tensors `pack-quantized`
    fp8          NAME.weight e4m3, .weight_scale                              compressed-tensors `float-quantized`
    e2m1         NAME.weight_packed uint8, .weight_scale, .weight_global_scale (a divisor)   `nvfp4-pack-quantized`
    e2m1         NAME.weight uint8, .weight_scale, .weight_scale_2 (a factor)                ModelOpt, read only
    int4         NAME.qweight int32 [K / 8, N], .scales [G, N], .qzeros, .g_idx              GPTQ, AutoRound, read only

An int32 holds its codes from the low bits up, offset to be unsigned; a byte of two codes has the even column low.

Shape legend: N output rows, K input columns, G scales a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_engine.checkpoint.quantization_scheme import StoredScheme
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.checkpoint.tensor_files import StoredTensor
from dgemma_engine.errors import CheckpointError
from dgemma_engine.quantization.quantized_tensor import E2M1_GROUP, INT_GROUP, Encoding, QuantisedTensor

SCALE_SUFFIXES = ("weight_packed", "weight_scale", "weight_shape", "weight_global_scale", "weight_scale_2")
SUFFIXES = ("weight", *SCALE_SUFFIXES, "qweight", "scales")
# Scales for activations in few bits, which this engine does not compute with; and GPTQ's zero points and group indices,
# which are only compared with those of symmetric weights in order.
IGNORED_SUFFIXES = ("input_scale", "input_global_scale", "qzeros", "g_idx")


def is_quantised(reader: CheckpointReader, name: str) -> bool:
    """Whether the matrix `name` is here in one of the layouts."""
    if f"{name}.weight_packed" in reader or f"{name}.qweight" in reader:
        return True
    return f"{name}.weight" in reader and reader.header(f"{name}.weight").dtype in ("F8_E4M3", "U8", "I8")


def layout_of(reader: CheckpointReader, name: str) -> tuple[object, ...]:
    """Returns what two quantised matrices must have in common to become one: types and widths of codes and scales."""
    packed, scale = f"{name}.weight_packed", f"{name}.weight_scale"
    if f"{name}.qweight" in reader:
        # The other way round: a row of the weight is a column here.
        headers = [reader.header(key) for key in (f"{name}.qweight", f"{name}.scales") if key in reader]
        return tuple((header.dtype, header.shape[:1]) for header in headers)
    headers = [reader.header(key) for key in (packed if packed in reader else f"{name}.weight", scale) if key in reader]
    return tuple((header.dtype, header.shape[1:]) for header in headers)


def read_matrix(reader: CheckpointReader, name: str, shape: tuple[int, int], scheme: StoredScheme) -> QuantisedTensor:
    """Reads a quantised matrix.

    Args:
        reader: of the folder.
        name: of the matrix's module.
        shape: N, K by `config.json`.
        scheme: of the folder.

    Raises:
        CheckpointError: names the key that is missing, of a wrong type or shape, and what to do.
    """
    packed = f"{name}.weight_packed"
    if f"{name}.qweight" in reader:
        return _read_gptq(reader, name, shape, scheme)
    if packed not in reader:
        dtype = reader.header(f"{name}.weight").dtype
        if dtype == "F8_E4M3":
            return _read_fp8(reader, name, shape)
        if dtype == "U8" and f"{name}.weight_scale_2" in reader:
            factor = _read(reader, f"{name}.weight_scale_2", "F32")
            return _read_e2m1(reader, name, f"{name}.weight", factor, shape)
        raise CheckpointError(f"{name}.weight: {dtype} weights are not known here; use the bf16 checkpoint")
    if reader.header(packed).dtype == "U8":
        divisor = _read(reader, f"{name}.weight_global_scale", "F32")
        return _read_e2m1(reader, name, packed, 1.0 / divisor, shape)
    return _read_integers(reader, name, shape, scheme)


def _read_integers(
    reader: CheckpointReader, name: str, shape: tuple[int, int], scheme: StoredScheme
) -> QuantisedTensor:
    (num_rows, num_columns), key = shape, f"{name}.weight_packed"
    _require_shape(name, tuple(_read(reader, f"{name}.weight_shape", "I64", "I32").tolist()), shape)
    words = _read(reader, key, "I32")
    # Of few columns both fill one word: the scheme tells them apart.
    per_word = {Encoding.INT8: 4, Encoding.INT4: 8}
    widths = {math.ceil(num_columns / per_word[encoding]): encoding for encoding in scheme.group_sizes}
    encoding = next((widths[width] for width in widths if words.shape == (num_rows, width)), None)
    if encoding is None:
        raise CheckpointError(
            f"{key}: shape {list(words.shape)} in the weights, which config.json does not describe for a matrix of "
            f"{list(shape)}; the two do not belong together"
        )
    size = scheme.group_sizes[encoding] or num_columns
    data = words.contiguous().view(torch.uint8)
    if encoding is Encoding.INT8:
        codes = (data[:, :num_columns] ^ 0x80).view(torch.int8)
    else:
        codes = data[:, : math.ceil(num_columns / 2)].contiguous()
    scales = _read(reader, f"{name}.weight_scale", "BF16", "F16", "F32")
    _require_shape(f"{name}.weight_scale", tuple(scales.shape), (num_rows, math.ceil(num_columns / size)))
    return QuantisedTensor(
        encoding=encoding, codes=codes, scales=scales, row_scales=None, num_columns=num_columns, group_size=size
    )


def _read_gptq(reader: CheckpointReader, name: str, shape: tuple[int, int], scheme: StoredScheme) -> QuantisedTensor:
    (num_rows, num_columns), size = shape, scheme.group_sizes.get(Encoding.INT4)
    if scheme.gptq_zero is None or size is None:
        raise CheckpointError(
            f"{name}.qweight: packed as GPTQ does, which config.json does not say; the two do not belong together"
        )
    num_groups = math.ceil(num_columns / size)
    words, scales = _read(reader, f"{name}.qweight", "I32"), _read(reader, f"{name}.scales", "F16", "BF16", "F32")
    _require_shape(f"{name}.qweight", tuple(words.shape), (math.ceil(num_columns / 8), num_rows))
    _require_shape(f"{name}.scales", tuple(scales.shape), (num_groups, num_rows))
    zeros = _read(reader, f"{name}.qzeros", "I32")
    _require_shape(f"{name}.qzeros", tuple(zeros.shape), (num_groups, math.ceil(num_rows / 8)))
    if bool((zeros.contiguous().view(torch.uint8) != scheme.gptq_zero * 0x11).any()):
        raise CheckpointError(
            f"{name}.qzeros: zero points that differ, although config.json says that weights are symmetric; use the "
            "bf16 checkpoint"
        )
    if f"{name}.g_idx" in reader:
        groups = _read(reader, f"{name}.g_idx", "I32", "I64")
        if not torch.equal(groups.long(), torch.arange(num_columns) // size):
            raise CheckpointError(
                f"{name}.g_idx: weights ordered by activation are not known here; use the bf16 checkpoint"
            )
    return QuantisedTensor(
        encoding=Encoding.INT4,
        codes=words.t().contiguous().view(torch.uint8)[:, : math.ceil(num_columns / 2)].contiguous(),
        scales=scales.t().contiguous(),
        row_scales=None,
        num_columns=num_columns,
        group_size=size,
    )


def _read_fp8(reader: CheckpointReader, name: str, shape: tuple[int, int]) -> QuantisedTensor:
    codes = _read(reader, f"{name}.weight", "F8_E4M3")
    _require_shape(f"{name}.weight", tuple(codes.shape), shape)
    scales = _read(reader, f"{name}.weight_scale", "BF16", "F16", "F32")
    _require_shape(f"{name}.weight_scale", tuple(scales.reshape(-1).shape), (shape[0],))
    return QuantisedTensor(
        encoding=Encoding.FP8,
        codes=codes,
        scales=scales.reshape(-1, 1),
        row_scales=None,
        num_columns=shape[1],
        group_size=shape[1],
    )


def _read_e2m1(
    reader: CheckpointReader, name: str, key: str, factor: Tensor, shape: tuple[int, int]
) -> QuantisedTensor:
    num_rows, num_columns = shape
    codes = _read(reader, key, "U8")
    _require_shape(key, tuple(codes.shape), (num_rows, math.ceil(num_columns / 2)))
    scales = _read(reader, f"{name}.weight_scale", "F8_E4M3")
    _require_shape(f"{name}.weight_scale", tuple(scales.shape), (num_rows, math.ceil(num_columns / E2M1_GROUP)))
    if factor.numel() != 1 or not bool(torch.isfinite(factor).all()):
        raise CheckpointError(f"{name}: its scale for the whole tensor is not one finite number; download it again")
    return QuantisedTensor(
        encoding=Encoding.E2M1,
        codes=codes,
        scales=scales,
        row_scales=factor.reshape(1, 1).expand(num_rows, 1).contiguous(),
        num_columns=num_columns,
        group_size=E2M1_GROUP,
    )


def stored_headers(name: str, encoding: Encoding, shape: tuple[int, int]) -> Iterator[tuple[str, StoredTensor]]:
    """Yields key, type and shape of what `stored_tensors` returns for a matrix [N, K], in the same order."""
    num_rows, num_columns = shape
    if encoding is Encoding.FP8:
        yield f"{name}.weight", StoredTensor(dtype="F8_E4M3", shape=shape)
        yield f"{name}.weight_scale", StoredTensor(dtype="BF16", shape=(num_rows, 1))
    elif encoding is Encoding.E2M1:
        yield f"{name}.weight_packed", StoredTensor(dtype="U8", shape=(num_rows, math.ceil(num_columns / 2)))
        groups = math.ceil(num_columns / E2M1_GROUP)
        yield f"{name}.weight_scale", StoredTensor(dtype="F8_E4M3", shape=(num_rows, groups))
        yield f"{name}.weight_global_scale", StoredTensor(dtype="F32", shape=(1,))
    else:
        per_word = 4 if encoding is Encoding.INT8 else 8
        words, groups = math.ceil(num_columns / per_word), math.ceil(num_columns / INT_GROUP)
        yield f"{name}.weight_packed", StoredTensor(dtype="I32", shape=(num_rows, words))
        yield f"{name}.weight_scale", StoredTensor(dtype="BF16", shape=(num_rows, groups))
        yield f"{name}.weight_shape", StoredTensor(dtype="I64", shape=(2,))


def stored_tensors(weight: QuantisedTensor) -> tuple[Tensor, ...]:
    """Returns the tensors of a matrix [N, K] that `quantise` made, in the order of `stored_headers`."""
    if weight.encoding is Encoding.FP8:
        return weight.codes, weight.scales
    if weight.encoding is Encoding.E2M1:
        assert weight.row_scales is not None
        return weight.codes, weight.scales, 1.0 / weight.row_scales[0]
    data = weight.codes.view(torch.uint8)
    if weight.encoding is Encoding.INT8:
        data = data ^ 0x80
    words = F.pad(data, (0, -data.shape[1] % 4)).view(torch.int32)
    return words, weight.scales, torch.tensor(weight.shape, dtype=torch.int64)


def _read(reader: CheckpointReader, key: str, *dtypes: str) -> Tensor:
    if key not in reader:
        raise CheckpointError(f"{key}: missing from the weights; download the whole model folder again")
    found = reader.header(key).dtype
    if found not in dtypes:
        raise CheckpointError(f"{key}: stored as {found}, only {', '.join(dtypes)} can be loaded")
    return reader.tensor(key)


def _require_shape(key: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise CheckpointError(
            f"{key}: shape {list(found)} in the weights, {list(expected)} by config.json; "
            "the two do not belong together"
        )
