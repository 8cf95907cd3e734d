"""The tuner's choices, with times made up: no GPU is asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from dgemma_kernels.launch_table import LaunchTable, read

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Triton exists for Linux only: the tuner was not checked"
)


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "kernels/bench")
    return importlib.import_module("tune")


def test_every_entry_that_can_be_tuned_has_a_case(tune: ModuleType) -> None:
    names = {case.name for case in tune.full_size.cases()}
    judges = {kernel: tune.judge(kernel) for kernel in read("sm_90").entries}
    assert {judge for judge in judges.values() if judge} <= names
    assert judges["experts_up.int4"] == "experts.int4.canvas"
    assert judges["experts_up.int4.large"] == "experts.int4.prompt"
    assert {kernel for kernel, judge in judges.items() if judge is None} == {"combine", "sum_splits", "tiles"}


def test_candidates_begin_with_what_is_there_and_repeat_nothing(tune: ModuleType) -> None:
    entry = read("sm_90").of("experts_down.int4")
    found = list(tune.candidates("experts_down.int4", entry))
    assert found[0] == entry
    assert len(found) == 24 and len({tuple(sorted(one.items())) for one in found}) == 24


def test_the_fastest_that_compiles_wins(tune: ModuleType) -> None:
    table = read("sm_90")

    def measure(trial: LaunchTable) -> float:
        entry = trial.of("vocabulary")
        if entry["num_warps"] == 4:
            raise ValueError("does not fit")
        return 1.0 / entry["BLOCK"]

    assert tune.best("vocabulary", table, measure) == {"BLOCK": 8192, "num_warps": 8}


def test_where_nothing_runs_the_entry_stays(tune: ModuleType) -> None:
    def measure(trial: LaunchTable) -> float:
        raise RuntimeError("no")

    assert tune.best("norm", read("sm_90"), measure) == read("sm_90").of("norm")


def test_without_a_gpu_it_says_so(
    tune: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    assert tune.main() == 1
    assert "there is none" in capsys.readouterr().err
