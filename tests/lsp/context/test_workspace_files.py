from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgemma_lsp.context.workspace_files import WorkspaceFiles


def files(*private: str) -> WorkspaceFiles:
    return WorkspaceFiles(lambda path, head: "private" if path.name in private or "SECRET" in head else None)


async def test_first_file_that_is_there_is_read(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r")
    assert await files().first([tmp_path / "a", tmp_path / "b"]) == (tmp_path / "b", "one\ntwo\n")
    assert await files().first([tmp_path / "a"]) is None


@pytest.mark.parametrize("content", [b"\xff", b"a\0b", b"x" * (512 * 1024 + 1), b"a SECRET"])
async def test_what_is_no_text_too_large_or_private_is_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert await files().first([tmp_path / "a"]) is None


async def test_private_name_is_not_even_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    opened: list[str] = []

    def why_not_read(path: Path, head: str) -> str:
        opened.append(head)
        return "private"

    assert await WorkspaceFiles(why_not_read).first([tmp_path / "a"]) is None
    assert opened == [""]


async def test_pipe_and_folder_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    assert await files().first([tmp_path / "a", tmp_path]) is None


async def test_unchanged_file_keeps_its_text_and_a_changed_one_is_read_again(tmp_path: Path) -> None:
    kept = files()
    path = tmp_path / "a"
    path.write_text("one")
    first, again = await kept.first([path]), await kept.first([path])
    assert first is not None
    assert again is not None
    assert again[1] is first[1]
    path.write_text("other")
    assert await kept.first([path]) == (path, "other")


async def test_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "diary.py").write_text("x")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/a.py").write_text("a")
    (root / "out.py").symlink_to("../diary.py")
    (root / "out").symlink_to("..")
    (root / "in.py").symlink_to("sub/a.py")
    (tmp_path / "link").symlink_to("root")
    assert await files().first([root / "out.py"], root=root) is None
    assert await files().first([root / "out/diary.py"], root=root) is None
    assert await files().first([root / "in.py"], root=root) == (root / "in.py", "a")
    inside = tmp_path / "link/in.py"
    assert await files().first([inside], root=tmp_path / "link") == (inside, "a")
    assert await files().first([root / "out.py"]) == (root / "out.py", "x")
