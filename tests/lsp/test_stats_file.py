from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dgemma_lsp.stats import Stats
from dgemma_lsp.stats_events import Suggested
from dgemma_lsp.stats_file import StatsBusy, StatsFile

ADD_FIFTY = """
import sys, time
from pathlib import Path
from dgemma_lsp.stats import Stats
from dgemma_lsp.stats_events import Suggested
from dgemma_lsp.stats_file import StatsBusy, StatsFile
one = Stats(since="2026-11-21")
one.add(Suggested())
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
    stats.add(Suggested())
    return stats


def test_additions_add_up(tmp_path: Path):
    file = StatsFile(tmp_path / "new")
    assert not file.read()
    file.add(one("2026-11-22"))
    file.add(one("2026-11-20"))
    assert (file.read().counts["suggestions"], file.read().since) == (2, "2026-11-20")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


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
