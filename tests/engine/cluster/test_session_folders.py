"""Removing the folders of earlier Ray sessions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dgemma_engine.cluster.session_folders import remove_ended, remove_own


def session(folder: Path, pid: int) -> Path:
    made = folder / f"session_2026-11-30_09-40-34_450371_{pid}" / "logs"
    made.mkdir(parents=True)
    (made / "raylet.out").write_text("x")
    return made.parent


@pytest.fixture
def ended_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_sessions_of_processes_that_have_ended_are_removed(tmp_path: Path, ended_pid: int) -> None:
    running, ended = session(tmp_path, os.getpid()), session(tmp_path, ended_pid)
    latest, other = tmp_path / "session_latest", tmp_path / "session_of_mine"
    latest.symlink_to(ended)
    other.mkdir()
    remove_ended(tmp_path)
    assert running.exists() and other.exists()
    assert not ended.exists() and not latest.is_symlink()


def test_link_to_a_running_session_stays(tmp_path: Path) -> None:
    (latest := tmp_path / "session_latest").symlink_to(session(tmp_path, os.getpid()))
    remove_ended(tmp_path)
    assert latest.is_symlink()


def test_own_sessions_are_removed_and_no_others(tmp_path: Path) -> None:
    own, other = session(tmp_path, 12), session(tmp_path, 112)
    remove_own(tmp_path, 12)
    assert not own.exists() and other.exists()


def test_missing_folder_is_nothing_to_remove(tmp_path: Path) -> None:
    remove_ended(tmp_path / "none")
    remove_own(tmp_path / "none", 1)


def test_session_that_is_still_written_to_is_removed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = tmp_path / "session_2026-11-30_10-14-46_760499_12"
    session.mkdir()
    pauses: list[float] = []
    rmtree = shutil.rmtree

    def late(path: Path, **options: bool) -> None:
        rmtree(path, **options)
        if len(pauses) < 3:
            path.mkdir()

    monkeypatch.setattr(shutil, "rmtree", late)
    monkeypatch.setattr("time.sleep", pauses.append)
    remove_own(tmp_path, 12)
    assert not session.exists() and len(pauses) == 3
