from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from dgemma_lsp.ignore_file import IgnoreFile, entries_of

NAMES = ("a", "b", "a.py", "b.txt", "build", "x y")
SEGMENTS = ("a", "b", "*", "**", "*.py", "b*", "[ab]", "?", "build", "a.py", "\\a", "*.*", "x y", "[!a]*", "**a")


def is_ignored(file: IgnoreFile, path: str) -> bool:
    return any((rule := file.deciding(entry)) is not None and rule.names for entry in entries_of(path))


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("*.log", "deep/down/x.log", True),
        ("/x.log", "deep/x.log", False),
        ("build/", "a/build/x", True),
        ("build/", "build", False),
        ("*.log\n!keep.log", "keep.log", False),
        ("logs/\n!logs/keep.log", "logs/keep.log", True),
        ("*\n!*/\n!*.py", "src/a.py", False),
        ("*\n!*/\n!*.py", "src/a.txt", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**", "a", False),
        ("# comment\n\n", "# comment", False),
        ("\\#x", "#x", True),
        ("x.log\r\n*.tmp\r\n", "x.log", True),
        ("\ufeffx.log", "x.log", True),
        ("x ", "x", True),
        ("x\\ ", "x ", True),
        ("[a-", "[a-", False),
        ("!", "!", False),
        ("\\", "\\", False),
    ],
)
def test_deciding(text: str, path: str, expected: bool):
    assert is_ignored(IgnoreFile.parse(text), path) is expected


def test_the_line_that_decides_is_named():
    rule = IgnoreFile.parse("*.py\nbuild/").deciding("build/")
    assert rule is not None
    assert rule.text == "build/"


def test_same_as_git_on_random_files(tmp_path: Path):
    rng = random.Random(7)
    for trial in range(8):
        folder = tmp_path / str(trial)
        subprocess.run(["git", "init", "-q", folder], check=True)
        text = "".join(random_line(rng) for _ in range(rng.randint(1, 4)))
        (folder / ".gitignore").write_text(text)
        paths = sorted(random_paths(rng, folder))
        result = subprocess.run(
            ["git", "-C", folder, "check-ignore", "--no-index", "--stdin"],
            input="\n".join(paths),
            capture_output=True,
            text=True,
            check=False,
        )
        ignored = {line.strip('"') for line in result.stdout.splitlines()}
        file = IgnoreFile.parse(text)
        assert {path for path in paths if is_ignored(file, path)} == ignored, text


def random_line(rng: random.Random) -> str:
    body = "/".join(rng.choice(SEGMENTS) for _ in range(rng.choice([1, 1, 2, 3])))
    return rng.choice(["", "", "!"]) + rng.choice(["", "/"]) + body + rng.choice(["", "", "/", " "]) + "\n"


def random_paths(rng: random.Random, folder: Path) -> set[str]:
    found: set[str] = set()
    for _ in range(25):
        path = folder.joinpath(*(rng.choice(NAMES) for _ in range(rng.randint(1, 4))))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:
            continue
        if path.is_file():
            found.add(str(path.relative_to(folder)))
    return found


def test_pattern_of_many_wildcards_is_answered_at_once():
    hostile = IgnoreFile.parse("*a*a*a*a*a*a*a*a*a*a*b\n" + "**/x*/" * 12 + "y\n")
    start_s = time.process_time()
    assert not is_ignored(hostile, "/".join(["a" * 200] * 8))
    assert time.process_time() - start_s < 5, "hours, if the wildcards multiplied"
    assert is_ignored(hostile, "aaaaaaaaaaab"), "names what it said, and may name more"


def test_taking_back_is_never_widened():
    file = IgnoreFile.parse("*.b\n!*a*a*a*a*a*.b")
    assert is_ignored(file, "x.b")
