"""Launch tables: which table a GPU gets, and that every table has all kernels."""

from __future__ import annotations

import logging

import pytest
import torch
from dgemma_kernels.launch import launch_table


def test_every_table_has_the_same_kernels() -> None:
    names = sorted(path.stem for path in launch_table.FOLDER.glob("*.json"))
    assert {"interpreter", "sm_89", "sm_90", "sm_120"} <= set(names)
    kernels = {name: set(launch_table.read(name).entries) for name in names}
    assert all(one == kernels["sm_90"] for one in kernels.values()), kernels


def test_gpu_without_a_table_gets_its_architectures_and_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert launch_table.choose("NVIDIA H200", (9, 0)).name == "sm_90"
        assert launch_table.choose("NVIDIA GeForce RTX 5090", (12, 0)).name == "sm_120"
    assert "bench/tune.py" in caplog.text and "NVIDIA H200" in caplog.text


def test_an_unknown_architecture_gets_the_smallest_blocks() -> None:
    assert launch_table.choose("Some Card", (10, 3)).name == "sm_89"


def test_names_of_gpus_become_names_of_files() -> None:
    assert launch_table.file_name("NVIDIA GeForce RTX 5090") == "nvidia_geforce_rtx_5090"


def test_cpu_gets_the_interpreters_table() -> None:
    assert launch_table.for_device(torch.device("cpu")).name == "interpreter"


def test_missing_entry_is_named() -> None:
    with pytest.raises(ValueError, match="no launch table 'sm_1'; there are interpreter"):
        launch_table.read("sm_1")
    with pytest.raises(ValueError, match="has no entry 'norms'"):
        launch_table.read("sm_90").of("norms")


def test_changed_values_reach_all_entries_of_a_kernel_and_no_other() -> None:
    table = launch_table.read("sm_90")
    changed = table.changed({"experts_down.int4": {"EACH": 2}, "linear": {"FILL": 132}})
    assert [changed.of(f"experts_down.int4{size}")["EACH"] for size in ("", ".large")] == [2, 2]
    assert changed.of("experts_down.int8") == table.of("experts_down.int8")
    assert all(changed.of(f"linear.{form}")["FILL"] == 132 for form in ("plain", "fp8", "int8", "int4", "nvfp4"))
    assert table.of("linear.fp8")["FILL"] == 0 and not changed.measured
    for unknown in ({"linea": {"FILL": 1}}, {"linear": {"FULL": 1}}):
        with pytest.raises(ValueError, match="launch table sm_90 has no entries 'linea"):
            table.changed(unknown)


def test_unmeasured_switches_are_off() -> None:
    for path in launch_table.FOLDER.glob("*.json"):
        table = launch_table.read(path.stem)
        off = {"FILL": 0, "LOOPS": 1, "AHEAD": 0, "EACH": 1, "ROUTE_BESIDE": 0, "RENOISE_AHEAD": 0}
        found = {name: value for entry in table.entries.values() for name, value in entry.items() if name in off}
        assert found == off
