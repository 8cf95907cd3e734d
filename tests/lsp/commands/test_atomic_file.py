"""A file is written completely or not at all."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dgemma_lsp.commands.atomic_file import NewFile, OutputRefused


def test_file_is_replaced_and_private(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    path.write_text("old")
    with NewFile(path) as file:
        assert path.read_text() == "old"
        file.write("né\r\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == "né\r\n".encode()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    path.write_text("old")
    with pytest.raises(KeyError), NewFile(path) as file:
        file.write("new")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sigterm_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    path.write_text("old")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, NewFile(path) as file:
        file.write("new")
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert signal.getsignal(signal.SIGTERM) == before


def test_path_that_cannot_be_written_is_refused_before_the_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = signal.getsignal(signal.SIGTERM)
    for path in (tmp_path, tmp_path / "none" / "out.html", tmp_path / "file" / "out.html"):
        with pytest.raises(OSError), NewFile(path):
            raise AssertionError("the block is not entered")
    assert signal.getsignal(signal.SIGTERM) == before


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.with_name("target").write_text("kept")
    path.symlink_to("target")


def dangling(path: Path) -> None:
    path.symlink_to("nothing")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def protected(path: Path) -> None:
    path.write_text("kept")
    path.chmod(0o444)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (link, "is a link"),
        (dangling, "is a link"),
        (fifo, "is not a regular file"),
        (listener, "is not a regular file"),
        (protected, "is write-protected"),
    ],
)
def test_link_pipe_and_protected_file_are_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "out.html"
    make(path)
    before = path.lstat()
    with pytest.raises(OutputRefused, match=f"out.html: {reason}.*; name a new file"), NewFile(path):
        raise AssertionError("the block is not entered")
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("name", ["a.py", "./a.py", "hard.py"])
def test_source_is_refused_under_every_name(tmp_path: Path, name: str) -> None:
    source = tmp_path / "a.py"
    source.write_text("kept")
    (tmp_path / "hard.py").hardlink_to(source)
    with pytest.raises(OutputRefused, match="is the file that is read"), NewFile(tmp_path / name, source=source):
        raise AssertionError("the block is not entered")
    assert source.read_text() == "kept"


def test_link_that_appears_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    with pytest.raises(OutputRefused, match="is a link"), NewFile(path) as file:
        file.write("new")
        link(path)
    assert path.read_text() == "kept"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["out.html", "target"]


def test_name_of_the_longest_length_is_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 250}.html"
    with NewFile(path) as file:
        file.write("new")
    assert path.read_text() == "new"
