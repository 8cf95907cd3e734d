from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgemma_lsp.commands.file_location import Target, TargetError, language_of, read_place


def offset_in(tmp_path: Path, data: bytes, line: int, column: int) -> int:
    path = tmp_path / "a.py"
    path.write_bytes(data)
    return read_place(Target(path=path, line=line, column=column)).offset


def test_parse_keeps_colons_of_the_name():
    assert Target.parse("a:b.py:3:4") == Target(path=Path("a:b.py"), line=3, column=4)


@pytest.mark.parametrize("argument", ["", "a.py", "a.py:1", ":1:1", "a.py:x:1", "a.py:1:", "a.py:-1:1", "a.py:1:²"])
def test_parse_refuses_other_forms(argument: str):
    with pytest.raises(TargetError, match="is not FILE:LINE:COLUMN"):
        Target.parse(argument)


@pytest.mark.parametrize(
    ("data", "line", "column", "offset"),
    [
        (b"ab\ncd", 1, 1, 0),
        (b"ab\ncd", 2, 3, 5),
        (b"ab\r\ncd", 2, 1, 4),
        (b"ab\n", 2, 1, 3),
        (b"", 1, 1, 0),
        ("😋b".encode(), 1, 2, 1),
        (b"\xef\xbb\xbfab", 1, 2, 1),
    ],
)
def test_read_counts_code_points_from_one(tmp_path: Path, data: bytes, line: int, column: int, offset: int):
    assert offset_in(tmp_path, data, line, column) == offset


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        (0, 1, "no line 0; it has lines 1 to 3"),
        (4, 1, "no line 4; it has lines 1 to 3"),
        (1, 0, "no column 0 in line 1; it has columns 1 to 3"),
        (1, 4, "no column 4 in line 1; it has columns 1 to 3"),
    ],
)
def test_read_refuses_places_outside(tmp_path: Path, line: int, column: int, message: str):
    with pytest.raises(TargetError, match=message):
        offset_in(tmp_path, b"ab\r\ncd\r\n", line, column)


def test_read_refuses_what_is_not_utf8(tmp_path: Path):
    with pytest.raises(TargetError, match=r"is not UTF-8 \(byte 1\)"):
        offset_in(tmp_path, b"a\xff", 1, 1)


@pytest.mark.parametrize(("name", "message"), [("none.py", "no such file"), (".", "is a directory"), ("a\0", "read")])
def test_read_refuses_what_is_no_file(tmp_path: Path, name: str, message: str):
    with pytest.raises(TargetError, match=message):
        read_place(Target(path=tmp_path / name, line=1, column=1))


def test_read_does_not_wait_for_the_writer_of_a_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TargetError, match="is a pipe, not a file"):
        read_place(Target(path=tmp_path / "pipe", line=1, column=1))


def test_language_of():
    assert (language_of(Path("A.PY")), language_of(Path("x.unknown"))) == ("python", "")
