"""`make test-isa`: every set limits the libraries of the tests, what is missing is named, failures are reported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.instruction_sets import SETS, processor_flags, run_all

CAPABILITY = "import torch; print(torch.backends.cpu.get_cpu_capability())"


def test_each_set_is_run_in_its_environment_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX")
    seen = list[dict[str, str | None]]()

    def run(environ: Mapping[str, str]) -> int:
        seen.append({name: environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")})
        return 1 if environ.get("ONEDNN_MAX_CPU_ISA") == "SSE41" else 0

    assert run_all(["SSE41", "AVX512_CORE_BF16", "default"], frozenset({"sse4_1", "avx2"}), run) == ["SSE41"]
    assert [values["ONEDNN_MAX_CPU_ISA"] for values in seen] == ["SSE41", "AVX512_CORE_BF16", None]
    first, second, third = capsys.readouterr().out.splitlines()
    assert (first, third) == ("numerical tests, SSE41", "numerical tests, default")
    assert second.endswith("(this processor lacks avx512_bf16: libraries fall back to what it has)")


def test_unknown_set_is_refused() -> None:
    command = [sys.executable, "tests/instruction_sets.py", "MMX"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown instruction set MMX; choose of SSE41, AVX2" in done.stderr


def test_processor_flags_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse4_1 avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert processor_flags(cpuinfo) == {"fpu", "sse4_1", "avx2"}
    assert processor_flags(tmp_path / "none") == frozenset()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor_flags(cpuinfo) == frozenset()


@pytest.mark.skipif("avx2" not in processor_flags(), reason="no AVX2: its limit was not tried")
def test_limit_reaches_torch() -> None:
    environ = {**os.environ, **SETS["AVX2"].environ}
    done = subprocess.run([sys.executable, "-c", CAPABILITY], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "AVX2", f"without a limit: {torch.backends.cpu.get_cpu_capability()}"
