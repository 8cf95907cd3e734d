"""Content is flushed to the disk before a file gets its name, so that a power failure leaves no partial file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from dgemma_engine.durable_files import put_in_place, write_whole
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


def test_failed_write_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a.json", b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_whole(tmp_path / "a.json", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"old"}


def test_folder_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "file").write_text("content")
    put_in_place(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole" / "file").read_text() == "content"
