"""The tuner's choices and its file, with made-up times and without a GPU."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from dgemma_kernels.launch.launch_table import LaunchTable, read

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Triton exists for Linux only: the tuner was not checked"
)


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "kernels/bench")
    return importlib.import_module("tune")


@dataclass
class Call:
    """A call whose time and result are functions of one kernel's entry in the table."""

    kernel: str
    time: Callable[[dict[str, int]], float]
    compute: Callable[[dict[str, int]], torch.Tensor] = lambda _entry: torch.ones(4)

    def result(self, table: LaunchTable) -> torch.Tensor:
        return self.compute(dict(table.of(self.kernel)))

    def seconds(self, table: LaunchTable) -> float:
        return self.time(dict(table.of(self.kernel)))


def tuner(tune: ModuleType, folder: Path, call: Call, **more: Any) -> Any:
    file = tune.TunedFile(folder / "card.json", "Card", read("sm_90"))
    return tune.Tuner(file=file, prepare=lambda _case: call, **more)


def ticking(times: Iterable[float]) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


def test_every_entry_that_can_be_tuned_has_cases(tune: ModuleType) -> None:
    names = {case.name for case in tune.full_size.cases()}
    judges = {kernel: tune.judges(kernel) for kernel in read("sm_90").entries}
    assert {name for cases in judges.values() for name in cases} <= names
    assert judges["experts_up.int4"] == ("experts.int4.canvas",)
    assert judges["experts_up.int4.large"] == ("experts.int4.prompt",)
    assert {kernel for kernel, cases in judges.items() if not cases} == {"combine", "sum_splits", "join_splits", "pass"}


def test_kernels_of_int4_and_fp8_models_come_first(tune: ModuleType) -> None:
    found = tune.ordered(read("sm_90").entries)
    assert found[:2] == ["experts_up.int4", "experts_up.fp8"]
    assert found.index("linear.int8") < found.index("experts_up.plain") < found.index("experts_up.int4.large")
    assert tune.ordered(read("sm_90").entries, ["linear.fp8", "tiles"]) == ["tiles", "linear.fp8"]
    assert tune.ordered(read("sm_90").entries, ["norm"]) == ["norm"]


def test_candidates_begin_with_the_current_entry_and_repeat_nothing(tune: ModuleType) -> None:
    entry = read("sm_90").of("experts_down.int4")
    found = list(tune.candidates("experts_down.int4", entry))
    assert found[0] == entry
    assert [(one["AHEAD"], one["EACH"]) for one in found[:6]] == [(0, 1), (1, 1), (0, 2), (0, 4), (1, 2), (0, 1)]
    assert len(found) == 28 and len({tuple(sorted(one.items())) for one in found}) == 28
    # Its scales are read where they are used.
    plain = tune.candidates("experts_down.nvfp4", read("sm_90").of("experts_down.nvfp4"))
    assert not any(one["AHEAD"] for one in plain)


def test_the_fastest_that_compiles_and_computes_the_same_wins(tune: ModuleType, tmp_path: Path) -> None:
    def time(entry: dict[str, int]) -> float:
        if entry["num_warps"] == 4:
            raise ValueError("does not fit")
        return 1.0 / entry["BLOCK"]

    def compute(entry: dict[str, int]) -> torch.Tensor:
        return torch.ones(4) * (2 if entry["BLOCK"] == 8192 else 1)

    assert tuner(tune, tmp_path, Call("vocabulary", time, compute)).run(["vocabulary"], 1e9) == 6
    content = json.loads((tmp_path / "card.json").read_text())
    # The fastest entry with the result of the first one; 8192 gives another result.
    assert content["entries"]["vocabulary"] == {"BLOCK": 4096, "num_warps": 8}
    assert content["entries"]["norm"] == read("sm_90").of("norm") and not content["measured"]


def test_entry_is_kept_if_no_candidate_runs(tune: ModuleType, tmp_path: Path) -> None:
    def time(_entry: dict[str, int]) -> float:
        raise RuntimeError("no")

    tuned = tuner(tune, tmp_path, Call("norm", time))
    tuned.run(["norm"], 1e9)
    assert tuned.file.table.of("norm") == read("sm_90").of("norm")


def test_next_run_continues_after_the_last_candidate(tune: ModuleType, tmp_path: Path) -> None:
    seen: list[dict[str, int]] = []

    def time(entry: dict[str, int]) -> float:
        seen.append(entry)
        return 1.0 / entry["BLOCK"]

    call = Call("vocabulary", time)
    # Read at the start, before the kernel and before each candidate: two of six are within the seconds.
    first = tuner(tune, tmp_path, call, clock=ticking([0.0, 0.0, 0.0, 1.0, 5.0]))
    assert first.run(["vocabulary"], 5.0) == 2
    assert not first.file.is_through("vocabulary")
    second = tuner(tune, tmp_path, call)
    assert second.run(["vocabulary"], 1e9) == 4
    assert seen == list(tune.candidates("vocabulary", read("sm_90").of("vocabulary")))
    assert second.file.table.of("vocabulary")["BLOCK"] == 8192
    assert tuner(tune, tmp_path, call).run(["vocabulary"], 1e9) == 0


def test_a_candidate_that_breaks_the_device_is_not_tried_again(tune: ModuleType, tmp_path: Path) -> None:
    def time(_entry: dict[str, int]) -> float:
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="broke the device"):
        tuner(tune, tmp_path, Call("norm", time), is_broken=lambda: True).run(["norm"], 1e9)
    again = tuner(tune, tmp_path, Call("norm", lambda _entry: 1.0))
    assert again.run(["norm"], 1e9) == 1


def test_table_is_marked_measured_once_every_kernel_is_tuned(tune: ModuleType, tmp_path: Path) -> None:
    class Fast:
        def result(self, _table: LaunchTable) -> torch.Tensor:
            return torch.ones(1)

        def seconds(self, _table: LaunchTable) -> float:
            return 1.0

    whole = tuner(tune, tmp_path, Fast())  # type: ignore[arg-type]
    whole.run([], 1e9)
    assert json.loads((tmp_path / "card.json").read_text())["measured"] is True


@pytest.mark.parametrize(
    ("each", "cache", "expected"), [(2**30, 60 * 2**20, 2), (2**20, 60 * 2**20, 121), (1, 2**26, 256)]
)
def test_copies_of_a_call_exceed_the_cache_twice(tune: ModuleType, each: int, cache: int, expected: int) -> None:
    assert importlib.import_module("cold_timing").copies(each, cache) == expected


def test_tuner_without_a_gpu_reports_that(
    tune: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    assert tune.main() == 1
    assert "there is none" in capsys.readouterr().err
