"""Threads beside other programs, and number formats."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from dgemma_engine.devices import limit_threads, pick_device, weight_dtype


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_half_the_cores_are_left_alone(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    assert limit_threads({}) == threads == torch.get_num_threads()


def test_users_own_choice_stands() -> None:
    torch.set_num_threads(3)
    assert limit_threads({"OMP_NUM_THREADS": "3"}) == 3


def test_cpu_is_picked_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "matrix_units", "dtype"),
    [("cpu", False, torch.float32), ("cpu", True, torch.bfloat16), ("cuda", False, torch.bfloat16)],
)
def test_number_format_is_what_the_hardware_multiplies(
    device: str, matrix_units: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix_units)
    assert weight_dtype(torch.device(device)) == dtype
