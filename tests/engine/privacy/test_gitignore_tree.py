from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dgemma_engine.privacy.gitignore_tree import IgnoreMatch, IgnoreTree


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


@pytest.fixture
def line_of(root: Path, clock: Clock) -> Callable[[str], str | None]:
    tree = IgnoreTree(home=root / "home", clock=clock)

    def line_of(path: str) -> str | None:
        match = tree.match(str(root / path))
        return f"{match.file} {match.line}" if match else None

    return line_of


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_deeper_of_nested_files_wins(root: Path, line_of: Callable[[str], str | None]):
    (root / "r/.git").mkdir(parents=True)
    put(root / "r/.gitignore", "*.log\nbuild/\n")
    put(root / "r/sub/.gitignore", "!keep.log\n")
    assert line_of("r/x.log") == ".gitignore *.log"
    assert line_of("r/sub/x.log") == ".gitignore *.log"
    assert line_of("r/sub/keep.log") is None
    assert line_of("r/build/deep/a.py") == ".gitignore build/"
    assert line_of("r/a.py") is None


def test_nothing_inside_an_ignored_folder_is_included_again(root: Path, line_of: Callable[[str], str | None]):
    (root / "r/.git").mkdir(parents=True)
    put(root / "r/.gitignore", "build/\n")
    put(root / "r/build/.gitignore", "!a.py\n")
    assert line_of("r/build/a.py") == ".gitignore build/"


def test_dgemmaignore_above_the_repository_counts_gitignore_does_not(root: Path, line_of: Callable[[str], str | None]):
    (root / "w/r/.git").mkdir(parents=True)
    put(root / "w/.gitignore", "*.py\n")
    put(root / "w/.dgemmaignore", "*.txt\n")
    assert line_of("w/r/a.py") is None
    assert line_of("w/r/a.txt") == ".dgemmaignore *.txt"


def test_dgemmaignore_may_include_what_gitignore_excludes(root: Path, line_of: Callable[[str], str | None]):
    put(root / "r/.gitignore", "generated/\n")
    put(root / "r/.dgemmaignore", "!generated/\nsecret/\n")
    assert line_of("r/generated/a.py") is None
    assert line_of("r/secret/a.py") == ".dgemmaignore secret/"


def test_exclude_file_of_the_repository_counts(root: Path, line_of: Callable[[str], str | None]):
    put(root / "r/.git/info/exclude", "mine.py\n")
    assert line_of("r/sub/mine.py") == "exclude mine.py"


def test_without_a_repository_the_home_folders_gitignore_does_not_count(
    root: Path, line_of: Callable[[str], str | None]
):
    put(root / "home/.gitignore", "*\n")
    put(root / "home/project/.gitignore", "*.log\n")
    assert line_of("home/project/a.py") is None
    assert line_of("home/project/a.log") == ".gitignore *.log"


def test_changed_file_is_read_again(root: Path, clock: Clock, line_of: Callable[[str], str | None]):
    put(root / "r/.gitignore", "a.py\n")
    assert line_of("r/a.py") is not None
    put(root / "r/.gitignore", "other.py\n")
    clock.now_s += 2
    assert line_of("r/a.py") is None
    put(root / "r/deep/.gitignore", "b.py\n")
    assert line_of("r/deep/b.py") is not None
    (root / "r/deep/.gitignore").unlink()
    clock.now_s += 2
    assert line_of("r/deep/b.py") is None


def test_forget_rereads_files_at_once(root: Path, clock: Clock):
    tree = IgnoreTree(home=root / "home", clock=clock)
    path = root / "r/a.py"
    assert tree.match(str(path)) is None
    put(root / "r/.gitignore", "a.py\n")
    assert tree.match(str(path)) is None, "files are read at most once a second"
    tree.forget()
    assert tree.match(str(path)) == IgnoreMatch(file=".gitignore", line="a.py")


def test_oversized_file_excludes_everything(root: Path, line_of: Callable[[str], str | None]):
    put(root / "r/.gitignore", "x\n" * 200_000)
    assert line_of("r/a.py") == ".gitignore it is longer than 256 KiB"


def test_pipe_and_folder_of_that_name_are_skipped(root: Path, line_of: Callable[[str], str | None]):
    os.mkfifo(root / ".gitignore")
    (root / ".dgemmaignore").mkdir()
    assert line_of("a.py") is None


def test_misleading_lines_are_reported_once(root: Path, clock: Clock):
    reports: list[str] = []
    tree = IgnoreTree(home=root / "home", clock=clock, report=reports.append)
    put(root / "r/.gitignore", "ok\n[ab\n")
    put(root / "r/.dgemmaignore", "[z-a]\n" + "x\\\n" * 8)
    for name in ("a.py", "b.py", "ok"):
        clock.now_s += 2
        tree.match(str(root / "r" / name))
    assert sorted(reports) == [
        f"{root}/r/.dgemmaignore, line 1: [z-a] counts as git reads it: the range z-a names z only; write a-z. "
        "The same file has such lines at 2, 3, 4, 5, 6, and 3 more",
        f"{root}/r/.gitignore, line 2: [ab is passed over: [ has no closing ]; write \\[ for the character itself",
    ]
    assert tree.match(str(root / "r/ok")) == IgnoreMatch(file=".gitignore", line="ok")


def test_odd_paths_are_not_ignored(root: Path, line_of: Callable[[str], str | None]):
    (root / ".gitignore").write_bytes(b"b\xff\n")
    assert line_of("no/such/folder/a.py") is None
    assert line_of("nul\0byte/a.py") is None
    assert line_of("/".join(["d"] * 500) + "/a.py") is None
