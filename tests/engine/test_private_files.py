"""Modes of written files and folders, under every umask."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.launcher import Launch
from dgemma_engine.ipc.lock_file import EngineLock, holder_pid
from dgemma_engine.private_files import keep_own_rights, make_private_folder, open_private

# Runs as an unprivileged user, whom missing permissions restrict.
AS_A_USER = """
import os, sys
from pathlib import Path
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import EngineLock
if os.geteuid() == 0:
    os.setuid(65534)
os.umask(0o777)
location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": "deep/run"})
location.prepare()
for round in range(2):
    with EngineLock.acquire(location.lock):
        pass
    location.lock.chmod(0)
    location.directory.chmod(0)
    location.prepare()
print("used")
"""


@pytest.fixture(params=[0o777, 0o077, 0o022, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_are_private_below_the_first_existing_one(tmp_path: Path, umask: int) -> None:
    tmp_path.chmod(0o755)
    make_private_folder(tmp_path / "a/b/c")
    make_private_folder(tmp_path / "a/b/c")
    assert [mode(tmp_path / name) for name in (".", "a", "a/b", "a/b/c")] == [0o755, 0o700, 0o700, 0o700]


def test_folder_that_disappears_is_missing_and_a_file_of_its_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes the folder between the failed mkdir() and the check of what is there."""

    def made_and_removed(_folder: Path, mode: int) -> None:
        raise FileExistsError

    (tmp_path / "file").touch(0o644)
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")
    assert mode(tmp_path / "file") == 0o644
    monkeypatch.setattr(Path, "mkdir", made_and_removed)
    with pytest.raises(FileNotFoundError):
        make_private_folder(tmp_path / "folder")


def test_files_are_private_and_stay_private(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "file"
    for before in (None, 0o000, 0o666):
        if before is not None:
            path.chmod(before)
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
        assert mode(path) == 0o600


def test_files_of_an_engine_are_private(tmp_path: Path, umask: int) -> None:
    location = EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(tmp_path / "deep/run")})
    location.prepare()
    lock = EngineLock.acquire(location.lock)
    assert lock is not None
    with lock:
        assert holder_pid(location.lock) == os.getpid()
    launch = Launch(location, [sys.executable, "-c", "print(1)"])
    launch._process.wait(60)
    paths = [location.directory.parent, location.directory, location.lock, location.log]
    assert [mode(path) for path in paths] == [0o700, 0o700, 0o600, 0o600]


def test_unprivileged_user_can_use_files_written_under_umask_777() -> None:
    # Not in pytest's temporary folder, which may lie below a folder that only root can enter.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="dgemma-") as folder:
        Path(folder).chmod(0o777)
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(
            [sys.executable, "-c", AS_A_USER], cwd=folder, env=environ, capture_output=True, text=True, check=False
        )
    assert (result.stdout, result.returncode) == ("used\n", 0), result.stderr


def test_own_rights_are_kept_and_those_of_others_stay_as_they_are(tmp_path: Path, umask: int) -> None:
    keep_own_rights()
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert mode(tmp_path / "file") == 0o666 & ~(umask & 0o077)
    assert mode(tmp_path / "folder") == 0o777 & ~(umask & 0o077)
