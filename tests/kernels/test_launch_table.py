"""Launch tables: which one a card gets, and that all know all kernels."""

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


def test_a_card_without_a_table_gets_its_architectures_and_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert launch_table.choose("NVIDIA H200", (9, 0)).name == "sm_90"
        assert launch_table.choose("NVIDIA GeForce RTX 5090", (12, 0)).name == "sm_120"
    assert "bench/tune.py" in caplog.text and "NVIDIA H200" in caplog.text


def test_an_unknown_architecture_gets_the_smallest_blocks() -> None:
    assert launch_table.choose("Some Card", (10, 3)).name == "sm_89"


def test_names_of_cards_become_names_of_files() -> None:
    assert launch_table.file_name("NVIDIA GeForce RTX 5090") == "nvidia_geforce_rtx_5090"


def test_a_processor_gets_the_interpreters() -> None:
    assert launch_table.for_device(torch.device("cpu")).name == "interpreter"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="no launch table 'sm_1'; there are interpreter"):
        launch_table.read("sm_1")
    with pytest.raises(ValueError, match="has no entry 'norms'"):
        launch_table.read("sm_90").of("norms")
