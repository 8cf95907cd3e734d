from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgemma_lsp.metrics.stats import Stats
from dgemma_lsp.metrics.store import StatsBusy, StatsFile

ADD_FIFTY = """
import sys, time
from pathlib import Path
from dgemma_lsp.metrics.stats import Stats
from dgemma_lsp.metrics.store import StatsBusy, StatsFile
one = Stats(since="2026-11-21")
one.add({"suggestions": 1}, {})
left = 50
while left:
    try:
        StatsFile(Path(sys.argv[1])).add(one)
        left -= 1
    except StatsBusy:
        time.sleep(0.001)
"""


def one(since: str = "2026-11-21") -> Stats:
    stats = Stats(since=since)
    stats.add({"suggestions": 1}, {})
    return stats


def test_additions_add_up(tmp_path: Path):
    file = StatsFile(tmp_path / "new")
    assert not file.read()
    file.add(one("2026-11-22"))
    file.add(one("2026-11-20"))
    assert (file.read().counts["suggestions"], file.read().since) == (2, "2026-11-20")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


@pytest.fixture(params=[0o777, 0o077, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}


def test_only_the_owner_can_read_whatever_the_umask_is(tmp_path: Path, umask: int):
    file = StatsFile(tmp_path / "local/state/new")
    file.add(one())
    file.add(one())
    assert file.read().counts["suggestions"] == 2
    assert modes(file.path.parent) == {"new": 0o700, "stats.json": 0o600, "stats.lock": 0o600}
    made = [tmp_path / "local", tmp_path / "local/state"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o000, 0o666])
def test_files_that_another_umask_left_are_mended(tmp_path: Path, mode: int):
    file = StatsFile(tmp_path / "new")
    file.add(one())
    for path in [*file.path.parent.iterdir(), file.path.parent]:
        path.chmod(mode)
    file.add(one())
    assert file.read().counts["suggestions"] == 2
    assert modes(file.path.parent) == {"new": 0o700, "stats.json": 0o600, "stats.lock": 0o600}


AS_A_USER = """
import os
from pathlib import Path
from dgemma_lsp.metrics.stats import Stats
from dgemma_lsp.metrics.store import StatsFile
if os.geteuid() == 0:
    os.setuid(65534)
os.umask(0o777)
one = Stats(since="2026-11-21")
one.add({"suggestions": 1}, {})
file = StatsFile(Path("state/new"))
file.add(one)
for path in [*file.path.parent.iterdir(), file.path.parent]:
    path.chmod(0)
file.add(one)
print(file.read().counts["suggestions"], file.delete())
"""


def test_user_without_privileges_reads_what_a_umask_of_777_left(tmp_path: Path):
    tmp_path.chmod(0o777)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", AS_A_USER], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("2 True\n", 0), result.stderr


@pytest.mark.e2e
def test_several_windows_at_once_lose_nothing(tmp_path: Path):
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    windows = [subprocess.Popen([sys.executable, "-c", ADD_FIFTY, tmp_path], env=environ) for _ in range(3)]
    assert [window.wait(120) for window in windows] == [0, 0, 0]
    assert StatsFile(tmp_path).read().counts["suggestions"] == 150
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stats.json", "stats.lock"]


def test_locked_file_is_busy_and_does_not_wait(tmp_path: Path):
    file = StatsFile(tmp_path)
    file.add(one())
    with (tmp_path / "stats.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StatsBusy, match="try again"):
            file.add(one())
        with pytest.raises(StatsBusy, match="try again"):
            file.delete()
    assert file.read().counts["suggestions"] == 1


def test_delete(tmp_path: Path):
    file = StatsFile(tmp_path)
    assert file.delete() is False
    file.add(one())
    assert file.delete() is True
    assert not file.read()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"version": 99}', b"\xff\xfe", b"[" * 100_000, b" " * 300_000]
)
def test_foreign_content_is_named_and_left_as_it_is(tmp_path: Path, content: bytes):
    file = StatsFile(tmp_path)
    file.path.write_bytes(content)
    with pytest.raises(ValueError, match="remove it with: dgemma-lsp stats --delete"):
        file.read()
    with pytest.raises(ValueError, match="remove it"):
        file.add(one())
    assert file.path.read_bytes() == content
    assert file.delete() is True


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/u/.local/state/dgemma-lsp/stats.json"),
        ({"XDG_STATE_HOME": "/s"}, "/s/dgemma-lsp/stats.json"),
        ({"XDG_STATE_HOME": "relative"}, "/home/u/.local/state/dgemma-lsp/stats.json"),
        ({"XDG_STATE_HOME": ""}, "/home/u/.local/state/dgemma-lsp/stats.json"),
    ],
)
def test_locate(environ: dict[str, str], expected: str):
    assert StatsFile.locate(environ, home=Path("/home/u")).path == Path(expected)
