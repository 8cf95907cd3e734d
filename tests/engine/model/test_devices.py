"""Number of threads, choice of a device, and number formats."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model import devices
from dgemma_engine.model.devices import limit_threads, pick_device, use_device, weight_dtype
from dgemma_engine.model.processor import ProductSpeeds


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_half_the_cores_are_left_to_other_programs(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    assert limit_threads({}) == threads == torch.get_num_threads()


def test_thread_count_of_the_user_is_kept() -> None:
    torch.set_num_threads(3)
    assert limit_threads({"OMP_NUM_THREADS": "3"}) == 3


def test_cpu_is_picked_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("has_driver", [True, False])
def test_reason_for_an_unused_card_is_logged(
    has_driver: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    if has_driver:
        (tmp_path / "version").write_text("NVRM version: 470.82\n")
    assert pick_device("auto") == torch.device("cpu")
    assert (
        "although there is a card: torch for CUDA 13.0 cannot use it: update the driver" in caplog.text
    ) is has_driver


CARDS = {
    "AMD": ("this torch is built for AMD's cards", lambda patch: patch.setattr(torch.version, "hip", "6.4")),
    "Apple": (
        "no kernels for Apple's cards", lambda patch: patch.setattr(torch.backends.mps, "is_available", lambda: True)
    ),
}  # fmt: skip


@pytest.mark.parametrize("maker", CARDS)
def test_cards_of_other_makers_are_unused_and_the_reason_is_logged(
    maker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    why, put_in = CARDS[maker]
    # As a build of torch for AMD cards returns.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    put_in(monkeypatch)
    assert pick_device("auto") == torch.device("cpu")
    assert "the model runs on the processor, although there is a card" in caplog.text and why in caplog.text
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(CheckpointError, match=f"device '{name}' cannot be used: .*{why}.*; use auto or cpu"):
            pick_device(name)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("name", "chosen"), [("cuda:1", ["cuda:1"]), ("cpu", [])])
def test_use_device_sets_the_threads_cuda_device(name: str, chosen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[str]()
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: seen.append(str(device)))
    use_device(torch.device(name))
    assert seen == chosen


@pytest.mark.parametrize(
    ("count", "cuda", "driver", "why"),
    [
        (2, "13.0", "", "the last of 2 is cuda:1"),
        (0, None, "", "this torch is built without CUDA: install one with it"),
        (0, "13.0", None, "no NVIDIA driver is loaded: install it"),
        (0, "13.0", "NVRM version: 470.82", "cannot use it: update the driver, which says 'NVRM version: 470.82'"),
    ],
)
def test_unavailable_card_is_refused_with_the_reason(
    count: int, cuda: str | None, driver: str | None, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    if driver is not None:
        (tmp_path / "version").write_text(driver + "\nGCC version: 12\n")
    with pytest.raises(CheckpointError, match=re.escape(why)):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    ("device", "bfloat16_ms", "dtype"),
    [("cpu", 9.0, torch.float32), ("cpu", 8.0, torch.bfloat16), ("cuda", 99.0, torch.bfloat16)],
)
def test_number_format_is_the_one_the_processor_multiplies_faster(
    device: str, bfloat16_ms: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = dict.fromkeys(ProductSpeeds.__dataclass_fields__, 1.0)
    speeds = ProductSpeeds(**same | {"float32": 10.0, "bfloat16": bfloat16_ms})
    monkeypatch.setattr(devices, "product_speeds", lambda _environ: speeds)
    assert weight_dtype(torch.device(device)) == dtype
