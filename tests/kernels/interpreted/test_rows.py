"""Row kernels against float32, on awkward shapes."""

from __future__ import annotations

import pytest
import torch
from dgemma_kernels import reference
from dgemma_kernels.ops import rows
from dgemma_kernels.reference.quantization import restore_rows
from dgemma_kernels.tensors.formats import Output, RowFormat
from dgemma_kernels.tensors.kv_store import KVStore

from tests.kernels.interpreted.errors import assert_as_close, draw

EPS = 1e-6
TYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("num_rows", "size"), [(1, 64), (3, 123), (2, 320)])
def test_norm_has_three_outputs(num_rows: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
    x, first, second = (
        draw(*shape, seed=i).to(device, dtype) for i, shape in enumerate([(num_rows, size), (size,), (size,)])
    )
    outputs = (Output(weight_D=first), Output(weight_D=second), Output())
    got = rows.norm(x, outputs, EPS)
    for one, output in zip(got, outputs, strict=True):
        weight = None if output.weight_D is None else output.weight_D.float()
        exact = torch.rms_norm(x.float(), (size,), weight, EPS)
        assert one.data_ND.dtype == dtype
        assert_as_close(one.data_ND, exact.to(dtype), exact)


@pytest.mark.parametrize("row_format", [RowFormat.FP8_TOKEN, RowFormat.FP8_GROUP])
@pytest.mark.parametrize("num_rows", [1, 5])
def test_quantised_outputs_err_within_the_format(num_rows: int, row_format: RowFormat, device: torch.device) -> None:
    x, weight = draw(num_rows, 192).to(device).bfloat16(), draw(192).to(device).bfloat16()
    x[0, :64] = 0.0
    outputs = (Output(weight_D=weight, format=row_format), Output(weight_D=weight))
    got, expected = rows.norm(x, outputs, EPS), reference.rows.norm(x, outputs, EPS)
    exact = torch.rms_norm(x.float(), (192,), weight.float(), EPS)
    assert got[0].format is row_format
    assert_as_close(restore_rows(got[0]), restore_rows(expected[0]), exact)
    assert_as_close(got[1].data_ND, expected[1].data_ND, exact)


@pytest.mark.parametrize("dtype", TYPES)
def test_residual_then_norm(dtype: torch.dtype, device: torch.device) -> None:
    residual, x, weight, reader = (
        draw(*shape, seed=i).to(device, dtype) for i, shape in enumerate([(3, 123), (3, 123), (123,), (123,)])
    )
    outputs = (Output(weight_D=reader),)
    y, (read,) = rows.add_norm(residual, x, weight, outputs, EPS)
    exact_y = residual.double() + torch.rms_norm(x.double(), (123,), weight.double(), EPS)
    assert_as_close(y, exact_y.to(dtype), exact_y)
    exact = torch.rms_norm(y.double(), (123,), reader.double(), EPS)
    assert_as_close(read.data_ND, exact.to(dtype), exact)


@pytest.mark.parametrize("num_parts", [1, 3])
@pytest.mark.parametrize("scalars", [1, 4])
def test_end_of_layer(num_parts: int, scalars: int, device: torch.device) -> None:
    residual, dense = (draw(4, 130, seed=i).to(device).bfloat16() for i in range(2))
    parts = draw(4, num_parts, 130).to(device).bfloat16()
    w0, w1, w2 = (draw(130, seed=i).to(device).bfloat16() for i in range(3))
    scalar = torch.linspace(0.5, 2.0, scalars, device=device)
    outputs = (Output(weight_D=w1),)
    y, (read,) = rows.merge_norm(residual, dense, parts, (w0, w1, w2), scalar, outputs, EPS)
    expected_y, (expected,) = reference.rows.merge_norm(residual, dense, parts, (w0, w1, w2), scalar, outputs, EPS)
    inner = torch.rms_norm(dense.double(), (130,), w0.double(), EPS)
    inner += torch.rms_norm(parts.double().sum(1), (130,), w1.double(), EPS)
    exact = (residual.double() + torch.rms_norm(inner, (130,), w2.double(), EPS)) * scalar.double().view(-1, 1)
    assert_as_close(y, expected_y, exact)
    assert_as_close(read.data_ND, expected.data_ND, torch.rms_norm(y.double(), (130,), w1.double(), EPS))


@pytest.mark.parametrize(("head_dim", "num_heads", "num_kv", "own_values"), [(32, 4, 2, True), (64, 3, 1, False)])
@pytest.mark.parametrize(("start", "first"), [(0, 0), (5, 0), (5, 3)])
def test_heads_are_normed_rotated_and_stored(
    head_dim: int, num_heads: int, num_kv: int, own_values: bool, start: int, first: int, device: torch.device
) -> None:
    projected = num_heads + num_kv * (2 if own_values else 1)
    heads = draw(3, projected, head_dim).to(device).bfloat16()
    q_weight, k_weight = (draw(head_dim, seed=i).to(device).bfloat16() for i in range(2))
    angles = draw(3, head_dim // 2, seed=9)
    angles[:, head_dim // 8 :] = 0.0
    angles = torch.cat((angles, angles), dim=-1).to(device)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    stores = [torch.full((num_kv, 9, head_dim), torch.nan, device=device, dtype=torch.bfloat16) for _ in range(4)]
    place = torch.tensor([start], device=device, dtype=torch.int32)
    arguments = (heads, q_weight, k_weight, cos, sin)
    q = rows.norm_rotary(*arguments, KVStore.of(*stores[:2], first), place, num_heads, EPS)
    expected = reference.rows.norm_rotary(*arguments, KVStore.of(*stores[2:], first), place, num_heads, EPS)
    exact_stores = [torch.zeros(num_kv, 9, head_dim, device=device) for _ in range(2)]
    widened = tuple(tensor.float() for tensor in arguments)
    exact = reference.rows.norm_rotary(*widened, KVStore.of(*exact_stores, first), place, num_heads, EPS)
    assert_as_close(q, expected, exact)
    for ours, theirs, true in zip(stores[:2], stores[2:], exact_stores, strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan()), "rows of other tokens are left unwritten"
        written = slice(start - first, start - first + 3)
        assert_as_close(ours[:, written], theirs[:, written], true[:, written])


def test_head_size_must_be_a_power_of_two(device: torch.device) -> None:
    one = torch.ones(48, device=device)
    store = torch.zeros(1, 4, 48, device=device)
    start = torch.zeros(1, dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="head_dim=48"):
        rows.norm_rotary(
            torch.ones(1, 3, 48, device=device), one, one, one[None], one[None], KVStore.of(store, store), start, 1, EPS
        )


@pytest.mark.parametrize("row_format", list(RowFormat))
def test_gated_gelu(row_format: RowFormat, device: torch.device) -> None:
    x = draw(3, 2 * 192).to(device).bfloat16() * 3
    got, expected = rows.gated_gelu(x, row_format), reference.rows.gated_gelu(x, row_format)
    gate, up = x.double().chunk(2, dim=-1)
    exact = torch.nn.functional.gelu(gate, approximate="tanh") * up
    assert got.format is row_format
    assert_as_close(restore_rows(got), restore_rows(expected), exact)


def test_groups_must_divide_the_row(device: torch.device) -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        rows.quantise(torch.ones(2, 100, device=device), RowFormat.FP8_GROUP)


def test_quantise_equals_the_reference(device: torch.device) -> None:
    x = draw(33, 128).to(device).bfloat16()
    got, expected = rows.quantise(x, RowFormat.FP8_TOKEN), reference.rows.quantise(x, RowFormat.FP8_TOKEN)
    assert torch.allclose(got.scale, expected.scale, rtol=1e-6)
    assert_as_close(restore_rows(got), restore_rows(expected), x)
