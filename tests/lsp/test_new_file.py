"""A file that is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgemma_lsp.new_file import NewFile


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


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "none" / "out.html", tmp_path / "file" / "out.html"):
        with pytest.raises(OSError), NewFile(path):
            raise AssertionError("the block is not entered")
