"""The committed prediction of gains, and the arithmetic on launches and machine code."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dgemma_kernels.launch.launch_table import read

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only: no gain was predicted")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "kernels/bench")
    return importlib.import_module


@pytest.fixture
def predicted() -> dict[str, Any]:
    return json.loads((ROOT / "kernels/bench/results/gains.json").read_text(encoding="utf-8"))


def launches(predicted: dict[str, Any], gain: str, which: str) -> list[dict[str, Any]]:
    return [launch for call in predicted["gains"][gain]["calls"].values() for launch in call[which]]


def test_prediction_is_of_the_current_changes(predicted: dict[str, Any], bench: Callable[[str], ModuleType]) -> None:
    assert not predicted["commit"].endswith("-dirty")
    gains = bench("table_gains").GAINS
    assert {name: gain["changes"] for name, gain in predicted["gains"].items()} == gains
    for changes in gains.values():
        for name in ("sm_90", "sm_89", "sm_120", "interpreter"):
            assert read(name).changed(changes).entries != read(name).entries


def test_no_kernel_with_a_gain_spills(predicted: dict[str, Any]) -> None:
    for gain in predicted["gains"]:
        for launch in launches(predicted, gain, "with"):
            assert launch["spill_store_bytes"] == 0, (gain, launch)


@pytest.mark.parametrize(
    ("gain", "case"),
    [
        ("split_k", "linear.plain.o_sliding"),
        ("split_k", "linear.int8.dense_down"),
        ("split_kv", "attention.canvas.256"),
        ("split_kv", "attention.canvas.512"),
    ],
)
def test_gains_that_fill_the_gpu_have_more_programs(predicted: dict[str, Any], gain: str, case: str) -> None:
    call = predicted["gains"][gain]["calls"][case]
    (before,), (after, joined) = call["without"], call["with"]
    assert before["programs"] < 132 * 2 and after["programs"] > before["programs"]
    assert joined["kernel"] in ("sum_splits_kernel", "join_splits_kernel")


def test_blocks_of_one_tile_share_a_program(predicted: dict[str, Any]) -> None:
    for call in predicted["gains"]["down_blocks"]["calls"].values():
        (up, before), (same_up, after) = call["without"], call["with"]
        assert up == same_up and 2 * after["programs"] == before["programs"]


def test_gains_of_whole_passes_change_no_kernel(predicted: dict[str, Any]) -> None:
    for gain in ("route_beside", "renoise_ahead"):
        assert predicted["gains"][gain]["calls"] == {}
        assert all(saved > 0 for saved in predicted["gains"][gain]["saves_ms_per_step"].values())


@pytest.mark.parametrize(("programs", "share"), [(132, 1.0), (264, 1.0), (44, 1 / 3), (133, 133 / 264)])
def test_share_of_the_gpu_that_has_work(bench: Callable[[str], ModuleType], programs: int, share: float) -> None:
    assert bench("predicted_time").filled(programs) == pytest.approx(share)


def test_gains_together_are_all_changes(bench: Callable[[str], ModuleType]) -> None:
    table_gains = bench("table_gains")
    changed = read("sm_90").changed(table_gains.together())
    assert changed.of("pass") == {"ROUTE_BESIDE": 1, "RENOISE_AHEAD": 1}
    assert (changed.of("experts_down.int4")["AHEAD"], changed.of("experts_down.int4")["EACH"]) == (1, 2)
    only = table_gains.together(("split_kv",))
    assert only == table_gains.GAINS["split_kv"]


def sass(*lines: str) -> str:
    return "".join(f"        /*{16 * place:04x}*/ {text} ;\n" for place, text in enumerate(lines))


def test_loops_are_found_with_their_waits(bench: Callable[[str], ModuleType]) -> None:
    """Two inner loops in an outer one, and a loop without products."""
    code = sass(
        "MOV R1, R2", "HGMMA.64x32x16.F32.BF16 R4", "WARPGROUP.DEPBAR.LE gsb0, 0x0", "NOP", "@P0 BRA 0x10",
        "IADD3 R3", "BRA 0x50", "HGMMA.64x32x16.F32.BF16 R4", "HGMMA.64x32x16.F32.BF16 R8", "@P1 BRA 0x70",
        "@P2 BRA 0x0",
    )  # fmt: skip
    machine_code = bench("machine_code")
    first, second = machine_code.matrix_loops(code)
    assert (first.instructions, first.matrix_instructions, first.waits) == (3, 1, 1)
    assert (second.instructions, second.matrix_instructions, second.waits) == (3, 2, 0)
    assert first.skipped_instructions == second.skipped_instructions == 0
    assert machine_code.inner_loop(code) == first
    storing = sass("HGMMA.64x32x16.F32.BF16 R4", "@P0 BRA 0x40", "STG.E R1", "STG.E R2", "IADD3 R3", "@P1 BRA 0x0")
    (loop,) = machine_code.matrix_loops(storing)
    assert (loop.instructions, loop.skipped_instructions) == (6, 2)
    assert machine_code.inner_loop(sass("MOV R1, R2", "BRA 0x0")) is None
