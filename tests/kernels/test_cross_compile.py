"""Each kernel compiles at full size for GPUs that need not be present: no spills, and shared memory within limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = {
    "attention_kernel", "combine_kernel", "experts_kernel", "finish_kernel", "gated_gelu_kernel", "linear_kernel",
    "join_splits_kernel", "norm_kernel", "norm_rotary_kernel", "route_kernel", "soft_embeddings_kernel",
    "statistics_kernel", "sum_splits_kernel",
}  # fmt: skip
# Launched only if a launch table splits keys; `gains.py` compiles it.
SWITCHED_ON = {"join_splits_kernel"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only: nothing was compiled")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [90, 89, 120])
def test_every_kernel_fits(architecture: int) -> None:
    command = [sys.executable, "kernels/bench/cross_compile.py", "--quick", "--architectures", str(architecture)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / folder) for folder in ("engine", "kernels"))
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    records = [json.loads(line) for line in result.stdout.splitlines()[:-1]]
    assert {record["kernel"] for record in records} == KERNELS - SWITCHED_ON, (
        "a kernel without a quick case is never compiled"
    )
    assert all(record["registers"] > 0 and record["spill_store_bytes"] == 0 for record in records)
    matrix = [record for record in records if record["kernel"] in ("experts_kernel", "linear_kernel")]
    assert all(record["instructions_per_weight"] > 0 for record in matrix)


def test_every_jit_kernel_has_a_case() -> None:
    found: set[str] = set()
    for path in (ROOT / "kernels/dgemma_kernels/ops").glob("_*.py"):
        found |= {
            word for word in path.read_text(encoding="utf-8").replace("(", " ").split() if word.endswith("_kernel")
        }
    assert found == KERNELS


def test_no_kernel_at_full_size_spills_or_exceeds_shared_memory() -> None:
    result = json.loads((ROOT / "kernels/bench/results/cross_compile.json").read_text(encoding="utf-8"))
    assert not result["commit"].endswith("-dirty")
    assert {record["sm"] for record in result["results"]} == {89, 90, 120}
    for record in result["results"]:
        assert record["spill_store_bytes"] == record["spill_load_bytes"] == 0, record
        assert record["shared_bytes"] <= record["shared_limit_bytes"], record


def test_attention_is_not_recompiled_for_unaligned_rows() -> None:
    """Rows and positions of a canvas begin after those of its block, at any multiple of four bytes."""
    program = (
        "from dgemma_kernels.ops._attention import attention_kernel as kernel;"
        "print(*(one.name for one in kernel.params if one.do_not_specialize_on_alignment))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "kernels")
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["row_ptr", "position_ptr"]


def test_keys_at_an_address_in_memory_are_read_16_bytes_at_a_time() -> None:
    """Triton derives the alignment of a pointer argument; for an address that is loaded the kernel must state it."""
    program = (
        "import re, sys; sys.path.insert(0, 'kernels/bench');"
        "import full_size, torch; from recorded_launch import record; from dgemma_kernels.launch import launch_table;"
        "case = next(case for case in full_size.cases() if case.name == 'attention.canvas.256');"
        "call = case.prepare(torch.device('meta'));"
        "(launch,) = record(lambda: call(launch_table.read('sm_90')));"
        "ptx = launch.compile(90)[0].asm['ptx'];"
        "print(*re.findall(r'cp[.]async[.]c[ag][^;]*\\], (0x[0-9a-f]+)', ptx))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / folder) for folder in ("engine", "kernels"))
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    # Rows of a canvas are 4 bytes each.
    widths = said.split()
    assert widths.count("0x10") >= 32 and set(widths) <= {"0x10", "0x4"}, widths
