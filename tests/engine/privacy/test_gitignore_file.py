from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from dgemma_engine.privacy.gitignore_file import IgnoreFile, entries_of, problem_of

NAMES = ("a", "b", "a.py", "b.txt", "build", "x y")
# Pieces with a special meaning in git's wildmatch; the tests combine them at random.
ODD = (
    *("[", "]", "!", "^", "-", "\\", "*", "**", "***", "?", "/", ".", ":", "{", "(", "+", "$", "|", " ", "\t"),
    *("a", "b", "z", "x", "5", "[:digit:]", "[:alpha:]", "[:x:]", "[a-z]", "[z-a]"),
)
ODD_NAMES = (
    *("a", "b", "z", "x", "5", "ab", "a-b", "-", "]", "[", "!", "^", "\\", "a5", "zz", "ax", "{", "(", "$", "|"),
    *("a b", "a\t"),
)
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
        ("[z-a]", "z", True),
        ("[z-a]", "a", False),
        ("[[:digit:]]*", "5x", True),
        ("[[:digit:]]*", "x5", False),
        ("[[:foo:]]", "f", False),
        ("a[\\]]b", "a]b", True),
        ("x[a/b]y", "xay", True),
        ("x[/]y", "x/y", False),
        ("a\t", "a\t", True),
        ("e\N{COMBINING ACUTE ACCENT}.py", "\N{LATIN SMALL LETTER E WITH ACUTE}.py", True),
        ("!", "!", False),
        ("\\", "\\", False),
    ],
)
def test_path_is_ignored_by_its_deciding_line(text: str, path: str, expected: bool):
    assert is_ignored(IgnoreFile.parse(text), path) is expected


def test_deciding_line_is_returned():
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


def test_same_as_git_on_lines_of_odd_characters(tmp_path: Path):
    rng = random.Random(11)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for _ in range(150):
        lines = ("".join(rng.choices(ODD, k=rng.randint(1, 7))) + "\n" for _ in range(rng.choice([1, 1, 2, 3])))
        (tmp_path / ".gitignore").write_text(text := "".join(lines))
        paths = sorted({"/".join(rng.choices(ODD_NAMES, k=rng.randint(1, 4))) for _ in range(60)})
        result = subprocess.run(
            ["git", "-C", tmp_path, "check-ignore", "--no-index", "-z", "--stdin"],
            input="\0".join(paths),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode in {0, 1}, result.stderr
        file = IgnoreFile.parse(text)
        assert {path for path in paths if is_ignored(file, path)} == set(result.stdout.split("\0")) - {""}, text


@pytest.mark.parametrize(
    ("line", "reason", "is_used"),
    [
        ("[z-a]", "the range z-a names z only; write a-z", True),
        ("a[b", "[ has no closing ]; write \\[ for the character itself", False),
        ("[[:digit:]", "[ has no closing ]; write \\[ for the character itself", False),
        ("[[:digit", "[ has no closing ]; write \\[ for the character itself", False),
        ("[a\\", "[ has no closing ]; write \\[ for the character itself", False),
        ("a\\", "it ends with a backslash; write \\\\ for the character itself", False),
        ("[[:foo:]]", "there is no class [:foo:]; there are alnum, ", False),
        ("a" * 5_000, "it is longer than 4096 characters; split it", False),
    ],
)
def test_misleading_line_is_reported(line: str, reason: str, is_used: bool):
    file = IgnoreFile.parse(f"*.log\n# a comment\n{line}\nbuild/\n")
    (flaw,) = file.flaws
    assert (flaw.line, flaw.text, flaw.is_used) == (3, line, is_used)
    assert flaw.reason.startswith(reason)
    assert is_ignored(file, "x.log")
    assert is_ignored(file, "build/x")
    assert not is_ignored(file, "a.py")


def test_common_lines_have_no_flaws():
    text = "# [\n\n*.py[cod]\n!keep/\n/a/**/b\n\\#x\n[!a]*\n[]a]\n[a-]\n{a,b}\n(a\n*.{o,a}\n!\n/\n"
    assert IgnoreFile.parse(text).flaws == ()


def test_every_text_parses():
    rng = random.Random(3)
    for _ in range(3_000):
        text = "".join(rng.choices([*ODD, "\0", "\ud800", "\udcff", "é", "\r", "\n", "#", "~", "&&", "||"], k=8))
        is_ignored(IgnoreFile.parse(text), "a/b.py")
        problem_of(text)


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


def test_pattern_of_many_wildcards_is_matched_in_bounded_time():
    hostile = IgnoreFile.parse("*a*a*a*a*a*a*a*a*a*a*b\n" + "**/x*/" * 12 + "y\n" + "**/*a*a/" * 50 + "y\n")
    start_s = time.process_time()
    assert not is_ignored(hostile, "/".join(["a" * 200] * 8))
    assert time.process_time() - start_s < 5, "an exponential search would take hours"
    assert is_ignored(hostile, "aaaaaaaaaaab")
    assert not is_ignored(hostile, "aaab")
