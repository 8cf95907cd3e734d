"""Measured speeds of a processor: stored for the next start, measured again if they cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from dgemma_engine.model import processor
from dgemma_engine.model.processor import ProductSpeeds, product_speeds
from dgemma_kernels.packing.few_bits import ProductKinds, RowWeights

INF = float("inf")
SPEEDS = ProductSpeeds(
    float32=10.0,
    bfloat16=5.0,
    int8=INF,
    row_float32=4.0,
    row_bfloat16=2.0,
    row_int8=1.0,
    row_int4=INF,
    few_dense=3.0,
    few_int8=INF,
    few_int4=INF,
)


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """Clears the cache of another test's measurement."""
    processor._speeds.cache_clear()  # pyright: ignore[reportPrivateUsage]
    yield
    processor._speeds.cache_clear()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def num_measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []

    def measure() -> ProductSpeeds:
        counts.append(1)
        return SPEEDS

    monkeypatch.setattr(ProductSpeeds, "measure", measure)
    return counts


def restarted(environ: dict[str, str]) -> ProductSpeeds:
    processor._speeds.cache_clear()  # pyright: ignore[reportPrivateUsage]
    return product_speeds(environ)


def test_measurement_is_kept_for_the_next_start(tmp_path: Path, num_measured: list[int]) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    assert [restarted(environ) for _ in range(3)] == [SPEEDS] * 3
    assert len(num_measured) == 1
    assert restarted(environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}) == SPEEDS
    assert len(num_measured) == 2
    assert len(json.loads((tmp_path / "dgemma-lsp/processor.json").read_text())) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", '{"a": 1}'])
def test_damaged_file_is_measured_again_and_replaced(tmp_path: Path, num_measured: list[int], content: str) -> None:
    path = tmp_path / "dgemma-lsp/processor.json"
    path.parent.mkdir()
    path.write_text(content)
    environ = {"HOME": "/nowhere", "XDG_CACHE_HOME": str(tmp_path)}
    assert [restarted(environ) for _ in range(2)] == [SPEEDS] * 2
    assert len(num_measured) == 1


@pytest.mark.parametrize("value", ['"5"', "null", "true", "-1", "0", "NaN", "[5]"])
def test_values_that_no_measurement_gives_are_measured_again(
    tmp_path: Path, num_measured: list[int], value: str
) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    restarted(environ)
    path = tmp_path / "dgemma-lsp/processor.json"
    path.write_text(path.read_text().replace(": 10.0", f": {value}"))
    assert [restarted(environ) for _ in range(2)] == [SPEEDS] * 2
    assert len(num_measured) == 2


def test_deeply_nested_file_is_measured_again(tmp_path: Path, num_measured: list[int]) -> None:
    path = tmp_path / "dgemma-lsp/processor.json"
    path.parent.mkdir()
    path.write_text("[" * 100_000)
    assert restarted({"XDG_CACHE_HOME": str(tmp_path)}) == SPEEDS
    assert len(num_measured) == 1


def test_relative_cache_folder_is_ignored(
    tmp_path: Path, num_measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    restarted({"XDG_CACHE_HOME": "cache", "HOME": str(tmp_path / "home")})
    assert (tmp_path / "home/.cache/dgemma-lsp/processor.json").exists() and not (tmp_path / "cache").exists()


def test_without_a_cache_folder_every_start_measures(tmp_path: Path, num_measured: list[int]) -> None:
    (tmp_path / "file").write_text("")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "file")}
    assert [restarted(environ) for _ in range(2)] == [SPEEDS] * 2
    assert len(num_measured) == 2


def of_times(*times: float) -> ProductSpeeds:
    """Returns speeds in the order of their fields; infinite ones for those left out."""
    names = ProductSpeeds.__dataclass_fields__
    return ProductSpeeds(**dict(zip(names, (*times, *[INF] * (len(names) - len(times))), strict=True)))


@pytest.mark.parametrize(
    ("times", "dtype", "row", "int8_mlp"),
    [
        ((10, 9, INF, 4, 9, 9, 9), torch.float32, RowWeights.DENSE, False),
        ((10, 5, INF, 4, 9, 8, 9), torch.bfloat16, RowWeights.DENSE, False),
        ((10, 5, INF, 4, 9, 7, 9), torch.bfloat16, RowWeights.INT8, False),
        ((10, 5, INF, 4, 9, 7, 6), torch.bfloat16, RowWeights.INT4, False),
        ((10, 9, INF, 9, 1, 7, INF), torch.float32, RowWeights.INT8, False),
        ((10, 5, 3, 4, 9, 7, 6), torch.bfloat16, RowWeights.INT4, True),
        ((10, 5, 3, 4, 9, 7, 9), torch.bfloat16, RowWeights.INT8, True),
        # Hardly slower for one row.
        ((10, 5, 3, 4, 9, 10, 10), torch.bfloat16, RowWeights.INT8, True),
        # Hardly faster for many rows, or slower for one.
        ((10, 5, 4.5, 4, 9, 7, 6), torch.bfloat16, RowWeights.INT4, False),
        ((10, 5, 3, 4, 9, 11, 11), torch.bfloat16, RowWeights.DENSE, False),
    ],
)
def test_faster_format_is_chosen_if_it_is_worth_the_lost_precision(
    times: tuple[float, ...], dtype: torch.dtype, row: RowWeights, int8_mlp: bool
) -> None:
    speeds = of_times(*times)
    assert speeds.dtype is dtype
    assert speeds.products(in_four_bits=True) == ProductKinds(row=row, int8_mlp=int8_mlp)


def test_weights_that_are_not_stored_in_four_bits_are_not_read_in_four() -> None:
    speeds = of_times(10, 5, 3, 4, 9, 7, 3)
    assert speeds.products(in_four_bits=True).row is RowWeights.INT4
    assert speeds.products(in_four_bits=False).row is RowWeights.INT8


@pytest.mark.parametrize(
    ("few", "int8_mlp", "row"),
    [
        ((11, INF, 8), False, RowWeights.FEW_INT4),
        ((11, 8, 8), False, RowWeights.FEW_INT4),
        ((11, 11, 8), True, RowWeights.FEW_INT4),
        # Hardly faster than what they would read otherwise.
        ((9, INF, 8), False, RowWeights.INT4),
        ((11, 9, 8), True, RowWeights.INT4),
        # Far slower than one row.
        ((30, 30, 13), False, RowWeights.INT4),
        ((INF, INF, INF), False, RowWeights.INT4),
    ],
)
def test_few_rows_read_four_bits_where_that_is_fast(
    few: tuple[float, float, float], int8_mlp: bool, row: RowWeights
) -> None:
    speeds = of_times(10, 5, 3 if int8_mlp else INF, 4, 9, 7, 6, *few)
    assert speeds.products(in_four_bits=True) == ProductKinds(row=row, int8_mlp=int8_mlp)
    assert not speeds.products(in_four_bits=False).row.in_four_bits


def test_a_measurement_has_a_time_for_every_format() -> None:
    speeds = ProductSpeeds.measure()
    assert min(speeds.float32, speeds.bfloat16, speeds.row_float32, speeds.row_bfloat16) > 0
    assert min(speeds.int8, speeds.row_int8, speeds.row_int4) > 0
    assert 0 < speeds.few_dense < INF and min(speeds.few_int8, speeds.few_int4) > 0
