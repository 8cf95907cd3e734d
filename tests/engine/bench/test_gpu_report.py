"""`make gpu-report` on a processor: parts on a tiny model, what a failed, hung or dead case costs, and the tables."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from dgemma_engine.model.ops import FusedOps

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "engine/bench/gpu/gpu_report.py"
USERS = ["users at once: 1", "users at once: 2"]
KEYS = {
    "case", "format", "ms_per_step", "tokens_per_s", "steps", "canvas", "prompt_tokens", "peak_bytes",
    "ratio_to_transformers",
}  # fmt: skip
STAMP = {"gpu": "Card", "torch": "2", "triton": "3", "commit": "abc", "date": "2026-01-01"}
# Packages that a machine set up for PyTorch alone lacks.
ABSENT = (
    "pygls", "lsprotocol", "pathspec", "tokenizers", "psutil", "tree_sitter", "transformers", "matplotlib", "pyarrow",
    "hypothesis", "pytest_asyncio", "pytest_lsp",
)  # fmt: skip
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    for folder in ("kernels/bench", "engine/bench/gpu"):
        monkeypatch.syspath_prepend(ROOT / folder)
    return importlib.import_module


@pytest.fixture
def report(modules: Callable[[str], ModuleType], tmp_path: Path) -> Any:
    return modules("gpu_result").Report(stamp=STAMP, run="1", path=tmp_path / "gpu_card.json")


@pytest.fixture
def setting(modules: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    cases = modules("gpu_cases")
    monkeypatch.setattr(cases, "SAMPLER", replace(cases.SAMPLER, num_steps=5))
    return modules("gpu_setting").GpuSetting.of_processor(("int4",))


def saved(report: Any) -> dict[str, Any]:
    return json.loads(report.path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("mode", ["TRITON_INTERPRET", "DGEMMA_TEST_GPU"])
@pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only: no collection was checked")
def test_collecting_the_kernels_tests_needs_none_of_the_servers_packages(mode: str) -> None:
    program = WITHOUT + (
        "import pytest; sys.exit(pytest.main(['-q', '--collect-only', '-p', 'no:cacheprovider', "
        "'tests/kernels/interpreted', 'tests/engine/interpreted']))"
    )
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": "/usr/bin:/bin", mode: "1"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3_000:] + run.stderr[-2_000:]
    assert "test_kernel_model" in run.stdout and "test_experts" in run.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only: no part was imported")
def test_importing_every_part_needs_none_of_the_servers_packages() -> None:
    program = WITHOUT + "import gpu_report, gpu_parts, tune, full_size, roofline, gains"
    paths = [ROOT / name for name in ("engine/bench/gpu", "kernels/bench", ".", "engine", "kernels")]
    environment = {"PYTHONPATH": ":".join(map(str, paths)), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("part", ["int4", "requests", "long", "transformers", "tokens"])
def test_part_writes_every_field_and_its_cases(
    part: str, modules: Callable[[str], ModuleType], setting: Any, report: Any, tmp_path: Path
) -> None:
    pytest.importorskip("transformers.models.diffusion_gemma")
    modules("gpu_parts").run_part(part, setting, report, tmp_path, 60.0)
    result = saved(report)
    assert {"gpu", "torch", "triton", "commit", "date", "results", "failed", "left_out"} <= result.keys()
    assert result["failed"] == [] and result["left_out"] == []
    assert all(entry.keys() == KEYS for entry in result["results"])
    expected = {
        "int4": ["fixed steps"],
        "requests": ["inline completion p50", "inline completion p95", "prefill", "prefill", *USERS],
        "long": ["fixed steps behind 16 tokens", "adaptive steps"],
        "transformers": ["transformers, fixed steps"],
        "tokens": [],
    }
    assert [entry["case"] for entry in result["results"]] == expected[part]
    assert all(entry["ms_per_step"] > 0 for entry in result["results"])
    if part == "int4":
        touched = result["distinct_experts"]["int4"]
        assert len(touched) == 2 and all(2 <= count <= 4 for count in touched)
        profiled = result["profile"]["int4"]
        assert 0 < len(profiled) <= 25 and profiled == sorted(profiled, key=lambda one: -one["us"])
        assert all(one["calls"] > 0 and 0 < one["share"] <= 1 for one in profiled)
    if part == "tokens":
        assert result["checked_tokens"]["int4"]["captured"] > 0


def test_captured_steps_that_read_a_stale_canvas_are_found(
    modules: Callable[[str], ModuleType], setting: Any, report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = modules("gpu_checks")

    def capture(_device: torch.device) -> Any:
        return lambda _work: lambda: None

    monkeypatch.setattr(checks, "capture_on", capture)
    modules("gpu_parts").run_part("tokens", setting, report, tmp_path, 60.0)
    (failed,) = saved(report)["failed"]
    assert "captured steps give other tokens" in failed["message"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("linear", lambda out: out.index_fill(0, torch.tensor([3]), 0.0), "linear: call 1: relative error"),
        ("soft_embeddings", lambda out: out * torch.nan, "soft_embeddings: call 1: a value is not finite"),
        (
            "route",
            lambda routing: replace(routing, assignment_M=routing.assignment_M.flip(0)),
            "route: call 1: assignment_M is no sort",
        ),
        ("route", lambda routing: replace(routing, indices_NK=3 - routing.indices_NK), "experts were chosen whose"),
        ("distribution", lambda scores: replace(scores, best_N=scores.best_N + 1), "a best token is not the likeliest"),
        ("distribution", lambda scores: replace(scores, sampled_N=scores.sampled_N * 0), "does not hold its level"),
    ],
)
def test_an_operation_that_computes_something_else_is_named(
    name: str,
    change: Callable[[Any], Any],
    message: str,
    modules: Callable[[str], ModuleType],
    setting: Any,
) -> None:
    checks = modules("gpu_checks")
    twin = FusedOps.reference()
    broken = replace(twin, **{name: lambda *args, **kwargs: change(getattr(twin, name)(*args, **kwargs))})
    operations = checks.Checks(device=torch.device("cpu"), config=setting.checked, sizes=setting.sizes, ops=setting.ops)
    assert set(operations.operations(None, twin)) >= {"norm_rotary", "experts", "canvas", "causal", "distribution"}
    with pytest.raises(ValueError, match=message):
        operations.operations(None, broken)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only: no layer was checked")
def test_tiny_checks_a_layer_in_the_interpreter_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, str(REPORT), "--tiny", "--formats", "int4", "--parts", "layers,gains,tune"]
    environment = {"PATH": "/usr/bin:/bin", "DGEMMA_COMMIT": "from the environment"}
    run = subprocess.run(
        [*command, "--out", str(tmp_path), "--seconds", "900"],
        cwd="/", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3_000:]
    last = json.loads(run.stdout.strip().rpartition("\n")[2])
    assert last["failed"] == [] and last["commit"] == "from the environment"
    result = json.loads((tmp_path / "gpu_tiny.json").read_text())
    assert result["checked_operations"]["int4"]["experts"]["calls"] == 8
    assert result["tuned"] == {"candidates": 1, "is_whole": False}
    assert result["checked_gains"]["int4"]["linear"] and result["checked_gains"]["int4"]["canvas"]
    gains = [entry["case"] for entry in result["results"]]
    assert gains[0] == "fixed steps, without gains" and gains[-1] == "fixed steps, every gain"
    assert "fixed steps, split_k" in gains and len(gains) == 8
    assert (tmp_path / "launch_tables/interpreter.json").exists()


def test_failed_case_leaves_the_others_to_run(
    modules: Callable[[str], ModuleType], setting: Any, report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules("gpu_cases").Bench, "inline", lambda _bench: 1 / 0)
    modules("gpu_parts").run_part("requests", setting, report, tmp_path, 60.0)
    result = saved(report)
    assert result["failed"] == [
        {
            "part": "requests", "case": "inline completion", "format": "int4",
            "message": "ZeroDivisionError: division by zero",
        }
    ]  # fmt: skip
    assert [entry["case"] for entry in result["results"]] == ["prefill", "prefill", *USERS]


def test_a_case_that_breaks_the_device_ends_the_part_and_the_next_process_goes_on_after_it(report: Any) -> None:
    report.is_broken = lambda: True
    report.begin("kernels")
    with pytest.raises(SystemExit):
        report.guard("a", "", lambda: 1 / 0)
    again = type(report)(stamp=STAMP, run="1", path=report.path)
    again.read()
    again.begin("kernels")
    assert again.left(["a", "b"]) == ["b"]
    ran: list[str] = []
    for name in ("a", "b"):
        again.guard(name, "", lambda name=name: ran.append(name) or [])
    assert ran == ["b"]


def test_a_process_that_dies_loses_the_case_that_ran_in_it(report: Any) -> None:
    report.begin("layers")
    report.guard("first", "fp8", lambda: [{"case": "first", "format": "fp8"}])

    def die() -> Any:
        # What the driver finds in the file when the process is gone.
        seen.append(saved(report)["cases"]["layers: second fp8"]["state"])
        raise KeyboardInterrupt

    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        report.guard("second", "fp8", die)
    assert seen == ["running"]
    driver = type(report)(stamp=STAMP, run="1", path=report.path)
    driver.read()
    assert driver.end_running("exit code -11: Fatal Python error") == 1
    result = saved(driver)
    assert [one["message"] for one in result["failed"]] == ["exit code -11: Fatal Python error"]
    assert result["results"] == [{"case": "first", "format": "fp8"}]


def test_later_run_keeps_earlier_results_and_replaces_what_it_measures_again(report: Any) -> None:
    report.begin("fp8")
    report.guard("fixed steps", "fp8", lambda: [{"case": "fixed steps", "format": "fp8", "ms_per_step": 2}])
    report.guard("distinct experts", "fp8", lambda: report.keep("distinct_experts", {"fp8": [1.0]}) or [])
    later = type(report)(stamp=STAMP | {"commit": "def"}, run="2", path=report.path)
    later.read()
    later.begin("fp8")
    later.guard("fixed steps", "fp8", lambda: [{"case": "fixed steps", "format": "fp8", "ms_per_step": 1}])
    later.begin("transformers")
    later.guard("in turn", "bf16", lambda: later.keep("transformers_ms_per_step_over", {"fp8": 9.0}) or [])
    result = saved(later)
    (row,) = result["results"]
    assert (row["ms_per_step"], row["ratio_to_transformers"]) == (1, 9.0)
    assert result["distinct_experts"] == {"fp8": [1.0]}
    commits = {case["case"]: case["stamp"]["commit"] for case in result["cases"].values()}
    assert commits == {"fixed steps": "def", "distinct experts": "abc", "in turn": "def"}


@pytest.mark.parametrize(
    ("commit", "state", "skipped"),
    [
        ("abc", "passed", True),
        ("abc", "failed", False),
        ("def", "passed", False),
        ("unknown", "passed", False),
        ("abc-dirty", "passed", False),
    ],
)
def test_resume_skips_what_passed_on_this_commit(report: Any, commit: str, state: str, skipped: bool) -> None:
    report.begin("fp8")
    if commit != "def":
        report.stamp = STAMP | {"commit": commit}
    report.guard("fixed steps", "fp8", lambda: [] if state == "passed" else 1 / 0)
    later = type(report)(stamp=STAMP | {"commit": commit, "date": "later"}, run="2", path=report.path, resume=True)
    later.read()
    later.begin("fp8")
    assert later.left(["fixed steps"], "fp8") == ([] if skipped else ["fixed steps"])


def test_file_of_another_card_is_ignored_and_a_damaged_one_refused(report: Any) -> None:
    report.begin("fp8")
    report.guard("fixed steps", "fp8", list)
    other = type(report)(stamp=STAMP | {"gpu": "Other"}, run="2", path=report.path)
    other.read()
    assert other.cases == {}
    report.path.write_text("{")
    with pytest.raises(ValueError, match="is no GPU report"):
        report.read()


def test_child_processes_end_with_their_process(modules: Callable[[str], ModuleType], tmp_path: Path) -> None:
    in_process = modules("gpu_process").in_process
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(mark)!r}).touch()"
    program = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    assert in_process([sys.executable, "-c", program], 1.0, {}).startswith("ended after 1 s")
    assert in_process([sys.executable, "-c", "import time; time.sleep(4)"], 30, {}) is None
    assert not mark.exists()
    breaking = "import os; raise SystemExit('no such card' + os.environ['CARD'])"
    assert in_process([sys.executable, "-c", breaking], 30, {"CARD": "!"}) == "exit code 1: no such card!\n"


def test_a_case_that_hangs_ends_its_process_and_says_where(
    modules: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    program = (
        f"import sys, time; sys.path.insert(0, {str(ROOT / 'engine/bench/gpu')!r}); import pathlib, gpu_result\n"
        f"report = gpu_result.Report(stamp={STAMP!r}, path=pathlib.Path({str(tmp_path / 'x.json')!r}), case_s=0.2)\n"
        "def waiting_for_the_card(): time.sleep(60)\n"
        "report.begin('tokens'); report.guard('hang', '', waiting_for_the_card)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == modules("gpu_result").HUNG
    (failed,) = json.loads((tmp_path / "x.json").read_text())["failed"]
    assert failed["message"].startswith("ended after 0 s at") and "waiting_for_the_card" in failed["message"]


def options(**changes: Any) -> Namespace:
    values = {"seconds": 300.0, "tiny": False, "resume": False, "formats": ("fp8",)}
    return Namespace(**values | changes)


def test_a_part_is_started_again_after_a_dead_case_until_nothing_is_gained(
    modules: Callable[[str], ModuleType], report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, plan = modules("gpu_report"), modules("gpu_plan")
    started: list[float] = []

    def process(_command: list[str], limit_s: float, _environment: dict[str, str]) -> str | None:
        started.append(limit_s)
        other = type(report)(stamp=STAMP, run="1", path=report.path)
        other.read()
        other.begin("layers")
        if len(started) == 1:
            other.cases["layers: a"] = {
                "part": "layers", "case": "a", "format": "", "state": "running", "run": "1", "stamp": STAMP, "rows": [],
                "more": {}, "message": "",
            }  # fmt: skip
            other.save()
        return "exit code 71: CUDA error"

    monkeypatch.setattr(driver, "in_process", process)
    driver.run_part(plan.Part(name="layers", limit_s=90), report, options(), driver.time.monotonic())
    assert len(started) == 2 and all(limit <= 90 for limit in started)
    assert [one["case"] for one in saved(report)["failed"]] == ["a", "process"]


def test_no_time_left_starts_no_part(
    modules: Callable[[str], ModuleType], report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = modules("gpu_report")
    monkeypatch.setattr(driver, "in_process", lambda *_arguments: pytest.fail("a part was started"))
    for part in modules("gpu_plan").parts_of(("fp8",)):
        driver.run_part(part, report, options(seconds=5.0), driver.time.monotonic())
    assert {one["message"] for one in saved(report)["left_out"]} == {"no time was left: run it again with --resume"}


def test_missing_gpu_is_reported_in_one_sentence_with_exit_code_1(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    run = subprocess.run(
        [sys.executable, str(REPORT), "--out", str(tmp_path)], cwd="/", capture_output=True, text=True, check=False
    )
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("gpu-report needs a CUDA device, and torch") and run.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--formats", "fp9"], "there is no format 'fp9'"), (["--parts", "layer"], "there is no part 'layer'")],
)
def test_wrong_options_are_named(
    arguments: list[str],
    message: str,
    modules: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        modules("gpu_report").parsed()
    assert message in capsys.readouterr().err


def test_failed_check_fails_the_report_and_failed_measurement_does_not(
    modules: Callable[[str], ModuleType], report: Any
) -> None:
    driver, parts = modules("gpu_report"), modules("gpu_plan").parts_of(("fp8",))
    report.begin("card")
    report.guard("versions", "", list)
    assert driver.is_bad(report, parts), "nothing was measured"
    report.begin("fp8")
    report.guard("fixed steps", "fp8", list)
    report.guard("distinct experts", "fp8", lambda: 1 / 0)
    assert not driver.is_bad(report, parts)
    report.begin("layers")
    report.guard("operations", "fp8", lambda: 1 / 0)
    assert driver.is_bad(report, parts)


def test_kernels_are_compared_with_the_rates_of_the_card(
    modules: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation of a step has calls that measure it."""
    kernels = modules("gpu_kernels")
    timing = modules("cold_timing")
    cpu = torch.device("cpu")
    rates = kernels.rates(cpu, read_bytes=2**16, size=64)
    assert rates["bytes_per_second"] > 0 and rates["bf16_flops"] > 0

    class Calls:
        num_copies = 3

        def __init__(self, _case: object, _device: object) -> None: ...

        def seconds(self, _table: object) -> float:
            return 1e-3

    monkeypatch.setattr(timing, "ColdCalls", Calls)
    given = {"bytes_per_second": 1e12, "bf16_flops": 1e15, "fp8_flops": None}
    found = {work.name: kernels.measured(work, cpu, given) for work in kernels.works()}
    assert found.keys() == kernels.CALLS_OF.keys()
    experts = found["experts.int4"]
    assert (experts["us"], experts["calls"], experts["ms_per_step"]) == (1000.0, 30, 30.0)
    assert experts["read_bandwidth_share"] == pytest.approx(0.417, abs=0.001)
    assert found["dense_mlp.plain"]["us"] == 2000.0 and found["dense_mlp.plain"]["copies"] == [3, 3]


def test_tables_come_from_the_reports_of_all_cards(
    modules: Callable[[str], ModuleType], report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = modules("gpu_table")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    row = {
        "case": "fixed steps", "format": "int4", "ms_per_step": 6.5, "tokens_per_s": 2461.5, "steps": 16, "canvas": 256,
        "prompt_tokens": 1024, "peak_bytes": 17 * 2**30, "ratio_to_transformers": None,
    }  # fmt: skip
    report.begin("int4")
    report.guard("fixed steps", "int4", lambda: [row])
    report.guard("distinct experts", "int4", lambda: 1 / 0)
    (tmp_path / "gpu_tiny.json").write_text("times that mean nothing")
    monkeypatch.setattr(sys, "argv", ["gpu_table.py", "--results", str(tmp_path), "--readme", str(readme)])
    assert table.main() == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| fixed steps | int4 | 6.5 | 2461.5 | 16 | 256 | 1024 | 17.0 |  |" in text
    assert "Failed: int4: distinct experts int4." in text and "One Card" in text and "commit abc" in text
    report.path.unlink()
    assert table.main() == 0
    assert table.OPEN in readme.read_text()


def test_performance_page_holds_the_tables_of_the_reports(modules: Callable[[str], ModuleType]) -> None:
    table = modules("gpu_table")
    found = table.reports(ROOT / "engine/bench/results")
    assert table.section(found) in (ROOT / "docs/PERFORMANCE.md").read_text(encoding="utf-8")
