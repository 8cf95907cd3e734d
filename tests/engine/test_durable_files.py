"""Content is flushed to the disk before a file gets its name, so that a power failure leaves no partial file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from dgemma_engine.durable_files import put_in_place
from dgemma_engine.tools.training.checkpoint import STATE, save_state


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records, in order, the files that are flushed to the disk and those that are renamed."""
    noted: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        noted.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def noting_replace(path: Path, target: Path) -> Path:
        noted.append(f"rename {path.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    return noted


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are asked of Linux")
def test_file_is_on_the_disk_before_its_name(tmp_path: Path, steps: list[str]) -> None:
    (tmp_path / "part").write_text("content")
    put_in_place(tmp_path / "part", tmp_path / "whole")
    assert steps == ["sync part", "rename part", f"sync {tmp_path.name}"]
    assert (tmp_path / "whole").read_text() == "content"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are asked of Linux")
def test_state_of_a_training_is_on_the_disk_before_its_name(tmp_path: Path, steps: list[str]) -> None:
    save_state({"tensor": torch.zeros(3)}, tmp_path)
    assert steps == [f"sync .{STATE}.part", f"rename .{STATE}.part", f"sync {tmp_path.name}"]


def test_folder_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "file").write_text("content")
    put_in_place(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole" / "file").read_text() == "content"
