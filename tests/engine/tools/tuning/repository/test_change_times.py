from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from dgemma_engine.tools.tuning.repository.change_times import change_times

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git; not checked: times of commits")


def git(folder: Path, *arguments: str, at_s: int = 0) -> None:
    when = f"{1_700_000_000 + at_s} +0000"
    names = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when, "GIT_CONFIG_GLOBAL": "/dev/null"}
    command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-C", str(folder), *arguments]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **names})


def commit(folder: Path, at_s: int, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {at_s}")
        os.utime(path, (1, 1))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "change", at_s=at_s)


@needs_git
def test_last_commit_of_each_file_counts(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    commit(tmp_path, 0, "a.py", "é b.py", "sub/c.py")
    commit(tmp_path, 50, "a.py", "sub/d.py")
    (tmp_path / "new.py").write_text("not committed")
    times = change_times(tmp_path, ["a.py", "é b.py", "sub/c.py", "sub/d.py", "new.py"], os.environ)
    assert [time_s - 1_700_000_000 for time_s in times] == [50, 0, 0, 50, 0]
    assert change_times(tmp_path / "sub", ["c.py", "d.py"], os.environ) == [1_700_000_000, 1_700_000_050]


def test_times_on_disk_count_without_a_history(tmp_path: Path) -> None:
    for name, time_s in (("a.py", 5), ("b.py", 3)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time_s, time_s))
    environ = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    assert change_times(tmp_path, ["a.py", "b.py", "gone.py"], environ) == [5, 3, 0]
    assert change_times(tmp_path, ["a.py"], {"PATH": "/nowhere"}) == [5]


@needs_git
def test_repository_configuration_starts_no_program(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    commit(tmp_path, 0, "a.py")
    trap, sprung = tmp_path / "trap.sh", tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {sprung}\n")
    trap.chmod(0o755)
    for key in ("core.pager", "core.fsmonitor", "gpg.program", "diff.external", "core.sshCommand"):
        git(tmp_path, "config", key, str(trap))
    git(tmp_path, "config", "log.showSignature", "true")
    assert change_times(tmp_path, ["a.py"], os.environ) == [1_700_000_000]
    assert not sprung.exists()
