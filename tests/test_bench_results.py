"""Benchmarks change committed results only with `--record`."""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine/bench", "kernels/bench")
WRITES = re.compile(r"add_destination|add_record|results\b")
# These read results and write documents from them; the tuner writes launch tables, which are code.
NO_BENCHMARKS = {"figures", "gpu_table", "record", "result_folder", "tune"}
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path.stem not in NO_BENCHMARKS
    and "ArgumentParser(" in (text := path.read_text(encoding="utf-8"))
    and WRITES.search(text)
)

BENCHMARK = """
import argparse
import record

parser = argparse.ArgumentParser()
record.add_destination(parser)
record.write("typing", {"answers": 3}, parser.parse_args().out)
"""


class Parsed(Exception):
    """Ends a benchmark once its options are read."""


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a folder of benchmarks with their results, with a small benchmark in the engine's."""
    copy = tmp_path / "bench"
    shutil.copytree(ROOT / request.param, copy, ignore=shutil.ignore_patterns("measured", "__pycache__"))
    if request.param == "engine/bench":
        (copy / "small.py").write_text(BENCHMARK, encoding="utf-8")
    return copy


def test_spread_of_no_times_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "engine/bench")
    record = importlib.import_module("record")
    assert record.spread([]) == {"p50_ms": None, "p95_ms": None}
    assert record.spread([3.0, 1.26, 2.0], prefix="asked_", digits=1) == {"asked_p50_ms": 2.0, "asked_p95_ms": 3.0}
    assert record.spread([1.0, 2.0], middle="median_ms") == {"median_ms": 1.5, "p95_ms": 2.0}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("bench", "script", "name"),
    [("engine/bench", "small", "typing"), ("kernels/bench", "roofline", "roofline")],
    indirect=["bench"],
)
def test_results_change_only_with_record(bench: Path, script: str, name: str) -> None:
    before = contents(bench / "results")
    packages = [str(ROOT), str(ROOT / "engine"), str(ROOT / "kernels"), str(bench)]
    start = f"import sys, runpy; sys.path[:0] = {packages}; runpy.run_path({str(bench / script)!r} + '.py', "
    for option, changed in (((), set[str]()), (("--record",), {f"{name}.json"})):
        code = f"{start}run_name='__main__')"
        subprocess.run([sys.executable, "-c", code, *option], check=True, cwd=ROOT, capture_output=True)
        after = contents(bench / "results")
        assert {file for file in after if after[file] != before.get(file)} == changed
        assert (bench / f"measured/{name}.json").is_file()
    assert before.keys() <= after.keys()


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_writes_to_an_ignored_folder(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ROOT / "/".join(Path(script).parts[:2])
    options = list[argparse.Namespace]()
    parse = argparse.ArgumentParser.parse_args

    def ending(parser: argparse.ArgumentParser, *arguments: object) -> argparse.Namespace:
        for action in parser._actions:  # of the options only the folder is looked at
            action.required = False
        options.append(parse(parser))
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", ending)
    monkeypatch.syspath_prepend((ROOT / script).parent)
    for option, expected in (([], "measured"), (["--record"], "results")):
        monkeypatch.setattr(sys, "argv", [script, *option])
        with pytest.raises(Parsed):
            importlib.import_module(Path(script).stem).main()
        assert options.pop().out == bench / expected


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: ignored folders were not looked at")
@pytest.mark.parametrize("folder", FOLDERS)
def test_measured_results_are_ignored_by_git(folder: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", f"{folder}/measured/typing.json"], cwd=ROOT, capture_output=True)
    assert ignored.returncode == 0
