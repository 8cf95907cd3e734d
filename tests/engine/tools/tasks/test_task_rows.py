from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.errors import TaskError, WrongUsage
from dgemma_engine.tools.tasks.task_rows import Part, fingerprint, read_rows
from dgemma_engine.tools.tasks.task_split import is_held_out


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_are_read_in_order_and_blank_lines_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl", '{"parts": [{"given": "a"}, {"free": "bc"}, {"free": 2}]}', "", '{"parts": [{"free": 1}]}'
    )
    first, second = read_rows(path)
    assert first.parts == (Part("given", "a"), Part("free", "bc"), Part("free", None, 2))
    assert second.place == f"{path}: line 3"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON; write"),
        ("[" * 100_000, "line 2 is no JSON; write"),
        ("7", 'line 2 has no "parts"; list'),
        ('{"parts": []}', 'line 2 has no "parts"; list'),
        ('{"parts": [{"given": "a"}]}', "line 2 has no free text; at least one part"),
        ('{"parts": [{"free": 0}]}', 'line 2 has a part that is neither .*: {"free": 0}'),
        ('{"parts": [{"free": true}]}', "line 2 has a part that is neither"),
        ('{"parts": [{"free": ""}]}', "line 2 has a part that is neither"),
        ('{"parts": [{"free": NaN}]}', "line 2 has a part that is neither"),
        ('{"parts": [{"free": "a", "given": "b"}]}', "line 2 has a part that is neither"),
        ('{"parts": ["a"]}', "line 2 has a part that is neither"),
    ],
)
def test_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "t.jsonl", '{"parts": [{"free": "a"}]}', line)
    with pytest.raises(TaskError, match=message):
        list(read_rows(path))


def test_a_file_that_cannot_be_read_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match=r"gone: no such file; name a file"):
        list(read_rows(tmp_path / "gone"))
    with pytest.raises(WrongUsage, match="gone: no such file; name a file"):
        fingerprint(tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
    with pytest.raises(TaskError, match="it is no UTF-8 text"):
        list(read_rows(tmp_path / "binary"))


def test_equal_rows_are_on_one_side_and_about_one_in_ten_is_held_out(tmp_path: Path) -> None:
    lines = [f'{{"parts": [{{"given": "{number}="}}, {{"free": "{number}"}}]}}' for number in range(2_000)]
    rows = list(read_rows(write(tmp_path / "t.jsonl", *lines, *lines)))
    sides = [is_held_out(row) for row in rows]
    assert sides[:2_000] == sides[2_000:]
    assert 150 < sum(sides[:2_000]) < 250
