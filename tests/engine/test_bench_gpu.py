"""`make bench-gpu` on a processor: its whole path on a tiny model, a failing case, the table of its figures."""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
KEYS = {
    "case", "format", "ms_per_step", "tokens_per_s", "steps", "canvas", "prompt_tokens", "peak_bytes",
    "ratio_to_transformers",
}  # fmt: skip


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "engine/bench")
    return importlib.import_module("gpu")


@pytest.fixture
def setting(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    cases = sys.modules[gpu.Bench.__module__]
    monkeypatch.setattr(cases, "SAMPLER", replace(cases.SAMPLER, num_steps=5))
    ops = gpu.Ops.fused_reference()
    return gpu.Setting(device=torch.device("cpu"), config=gpu.tiny(), ops=ops, sizes=gpu.TINY, formats=("int4",))


def test_every_part_writes_what_the_issue_asks_for(gpu: ModuleType, setting: Any, tmp_path: Path) -> None:
    def start(part: str, path: Path, limit_s: float) -> str | None:
        assert 0 < limit_s <= gpu.PART_S
        gpu.run_part(part, setting, gpu.Result(path=path))
        return None

    gpu.write("gpu_tiny", gpu.gather(setting, start), setting, tmp_path, 1.0)
    result = json.loads((tmp_path / "gpu_tiny.json").read_text())
    assert {"gpu", "torch", "triton", "commit", "date", "results", "failed", "distinct_experts"} <= result.keys()
    assert result["failed"] == []
    assert all(entry.keys() == KEYS for entry in result["results"])
    for form in ("int4",):
        found = {entry["case"]: entry for entry in result["results"] if entry["format"] == form}
        assert found.keys() == {
            "fixed steps", "adaptive steps", "prefill", "inline completion p50", "inline completion p95",
            "fixed steps behind 40 tokens",
        }  # fmt: skip
        assert found["fixed steps"]["steps"] == 2 and found["fixed steps"]["ratio_to_transformers"] > 0
        assert found["fixed steps"]["ms_per_step"] > 0 and found["adaptive steps"]["steps"] == 5
        touched = result["distinct_experts"][form]
        assert len(touched) == 2 and all(2 <= count <= 4 for count in touched)
    assert result["results"][-1]["case"] == "transformers, fixed steps"


def test_a_case_that_fails_takes_no_other_along(
    gpu: ModuleType, setting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.Bench, "inline", lambda _bench: 1 / 0)
    result = gpu.Result(path=tmp_path / "part.json")
    gpu.run_part("int4", setting, result)
    saved = json.loads((tmp_path / "part.json").read_text())
    assert saved["failed"] == [
        {"case": "inline completion", "format": "int4", "message": "ZeroDivisionError: division by zero"}
    ]
    assert {"fixed steps", "prefill", "adaptive steps"} <= {entry["case"] for entry in saved["rows"]}


def test_a_part_that_breaks_or_hangs_is_told_and_what_it_measured_is_kept(
    gpu: ModuleType, setting: Any, tmp_path: Path
) -> None:
    def start(part: str, path: Path, limit_s: float) -> str | None:
        entry = {"case": "fixed steps", "format": part}
        path.write_text(json.dumps({"rows": [entry], "failed": [], "more": {"distinct_experts": {part: [1.0]}}}))
        return "exit code -6: CUDA error" if part == "int4" else None

    result = gpu.gather(setting, start)
    assert result.failed == [{"case": "part int4", "format": "", "message": "exit code -6: CUDA error"}]
    assert len(result.rows) == len(setting.parts) and set(result.more["distinct_experts"]) == set(setting.parts)


def test_a_part_in_a_process_of_its_own(gpu: ModuleType, tmp_path: Path) -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = time.monotonic()
    assert gpu.in_process(sleeping, "fp8", tmp_path / "x", 0.5) == "ended after 0 s; cases it had finished are kept"
    assert time.monotonic() - started < 30
    breaking = [sys.executable, "-c", "raise SystemExit('no such card')"]
    assert gpu.in_process(breaking, "fp8", tmp_path / "x", 30) == "exit code 1: no such card\n"
    assert gpu.in_process([sys.executable, "-c", ""], "fp8", tmp_path / "x", 30) is None


def test_no_time_left_starts_no_part(gpu: ModuleType, setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BUDGET_S", 0.0)
    result = gpu.gather(setting, lambda *_arguments: pytest.fail("a part was started"))
    assert {one["message"] for one in result.failed} == {"left out: no time was left"}


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 1
    assert capsys.readouterr().err == gpu.NO_GPU + "\n"


def test_kernels_are_held_against_the_cards_own_rates(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation of a step has calls that measure it; one that fails is told."""
    kernels = gpu.gpu_kernels
    cpu = torch.device("cpu")
    rates = kernels.rates(cpu, read_bytes=2**16, size=64)
    assert rates["bytes_per_second"] > 0 and rates["bf16_flops"] > 0

    def time_of(case: Any, _table: object, _device: object) -> float:
        if case.name == "route.canvas":
            raise RuntimeError("out of resource: shared memory")
        return 1e-3

    monkeypatch.setattr(kernels, "time_of", time_of)
    found, failed = kernels.measured(cpu, {"bytes_per_second": 1e12, "bf16_flops": 1e15, "fp8_flops": None})
    assert failed == [{"case": "kernel route", "format": "", "message": "RuntimeError: out of resource: shared memory"}]
    by_name = {one["kernel"]: one for one in found}
    roofline = importlib.import_module("roofline")
    assert by_name.keys() == {work.name for work in roofline.works()} - {"route"}
    experts = by_name["experts.int4"]
    assert (experts["us"], experts["calls"], experts["ms_per_step"]) == (1000.0, 30, 30.0)
    assert experts["read_bandwidth_share"] == pytest.approx(0.417, abs=0.001)
    assert by_name["dense_mlp.plain"]["us"] == 2000.0


def test_table_comes_from_the_result(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = importlib.import_module("gpu_table")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    row = {
        "case": "fixed steps", "format": "int4", "ms_per_step": 6.5, "tokens_per_s": 2461.5, "steps": 16, "canvas": 256,
        "prompt_tokens": 1024, "peak_bytes": 17 * 2**30, "ratio_to_transformers": None,
    }  # fmt: skip
    result = {
        "gpu": "Card", "torch": "2", "triton": "3", "commit": "abc", "date": "2026-01-01", "results": [row],
        "failed": [{"case": "prefill", "format": "fp8", "message": "no"}],
    }  # fmt: skip
    (tmp_path / "gpu.json").write_text(json.dumps(result))
    monkeypatch.setattr(sys, "argv", ["gpu_table.py", "--result", str(tmp_path / "gpu.json"), "--readme", str(readme)])
    assert table.main() == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| fixed steps | int4 | 6.5 | 2461.5 | 16 | 256 | 1024 | 17.0 |  |" in text
    assert "Failed: prefill fp8." in text and "One Card" in text
    (tmp_path / "gpu.json").unlink()
    assert table.main() == 0
    assert table.OPEN in readme.read_text()


def test_readme_says_what_the_result_says(gpu: ModuleType) -> None:
    table = importlib.import_module("gpu_table")
    path = ROOT / "engine/bench/results/gpu.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    assert table.section(result) in (ROOT / "docs/PERFORMANCE.md").read_text(encoding="utf-8")
