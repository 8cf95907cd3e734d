from __future__ import annotations

from pathlib import Path

import pytest

from dgemma_lsp.repository_learning import repository_size
from dgemma_lsp.repository_learning.repository_size import has_more_files


def nothing_private(_path: Path, _head: str) -> None:
    return None


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["a.py", "b", "c/d.rs"], 3),
        ([".hidden", ".git/config", "a/.env"], 0),
        (["node_modules/x/y.js", "build/a.o", "src/build.py"], 1),
        ([], 0),
    ],
)
async def test_hidden_and_generated_files_do_not_count(tmp_path: Path, names: list[str], count: int) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert not await has_more_files(tmp_path, count, nothing_private)
    assert count == 0 or await has_more_files(tmp_path, count - 1, nothing_private)


async def test_private_files_do_not_count(tmp_path: Path) -> None:
    for index in range(100):
        (tmp_path / f"{index}.py").touch()

    def why_not_read(path: Path, _head: str) -> str | None:
        return "private" if path.stem == "7" else None

    assert await has_more_files(tmp_path, 98, why_not_read)
    assert not await has_more_files(tmp_path, 99, why_not_read)


async def test_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert not await has_more_files(tmp_path / "gone", 0, nothing_private)


async def test_entries_beyond_the_limit_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository_size, "_MOST_ENTRIES", 11)
    for folder in "abc":
        (tmp_path / folder).mkdir()
        for index in range(8):
            (tmp_path / folder / f"{index}.py").touch()
    assert await has_more_files(tmp_path, 7, nothing_private)
    assert not await has_more_files(tmp_path, 8, nothing_private)


async def test_entries_of_one_folder_beyond_the_limit_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_size, "_MOST_ENTRIES", 10)
    for index in range(30):
        (tmp_path / f"{index}.py").touch()
    assert await has_more_files(tmp_path, 9, nothing_private)
    assert not await has_more_files(tmp_path, 10, nothing_private)
