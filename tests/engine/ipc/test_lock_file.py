"""A lock has one holder, identified by its process id; the lock of a dead process is free."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dgemma_engine.errors import SocketRefused
from dgemma_engine.ipc.lock_file import EngineLock, holder_pid


def test_acquire_is_exclusive_until_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = EngineLock.acquire(path)
    assert lock is not None
    with lock:
        assert EngineLock.acquire(path) is None
        assert holder_pid(path) == os.getpid()
    assert holder_pid(path) is None
    assert path.read_text() == ""
    again = EngineLock.acquire(path)
    assert again is not None
    with again:
        assert path.stat().st_mode & 0o777 == 0o600


def test_acquire_takes_over_from_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print('held',flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert EngineLock.acquire(path) is None
        assert holder_pid(path) is None  # The holder has not written its id.
        holder.kill()
    lock = EngineLock.acquire(path)
    assert lock is not None
    with lock:
        assert holder_pid(path) == os.getpid()


def test_holder_pid_of_no_file_creates_none(tmp_path: Path) -> None:
    assert holder_pid(tmp_path / "lock") is None
    assert not (tmp_path / "lock").exists()


def test_acquire_refuses_a_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SocketRefused, match="cannot be opened"):
        EngineLock.acquire(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
