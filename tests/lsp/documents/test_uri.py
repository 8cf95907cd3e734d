from __future__ import annotations

import random
from pathlib import Path

import pytest
from dgemma_engine.path_style import PathStyle

from dgemma_lsp.documents.uri import Uri, folder_of, path_of
from dgemma_lsp.server.conversions import shown_path

PIECES = [
    "file:",
    "//",
    "/",
    "[",
    "]",
    "%",
    "%zz",
    "%00",
    "%2e",
    "#",
    "?",
    "a",
    ".env",
    "\ud800",
    "\0",
    "é",
    "\\",
    "@",
    ":",
]


@pytest.mark.parametrize(
    ("text", "scheme", "host", "path"),
    [
        ("file:///w/a%20b.py", "file", "", "/w/a b.py"),
        ("FILE:/w/a.py", "file", "", "/w/a.py"),
        ("file:///w/c#/a?.py", "file", "", "/w/c#/a?.py"),
        ("file://[x/a.py", "file", "[x", "/a.py"),
        ("file://server/share/a.py", "file", "server", "/share/a.py"),
        ("file:///%zz", "file", "", "/%zz"),
        ("file:///w/%ff.py", "file", "", "/w/\udcff.py"),
        ("file:", "file", "", ""),
        ("", "", "", ""),
        ("/w/a.py", "", "", "/w/a.py"),
        ("untitled:C#-1", "untitled", "", "C#-1"),
        ("vscode-notebook-cell:/w/a%23.ipynb#W0", "vscode-notebook-cell", "", "/w/a#.ipynb"),
        ("git:/w/a.py?%7B%22ref%22%7D", "git", "", "/w/a.py"),
    ],
)
def test_parse(text: str, scheme: str, host: str, path: str):
    parsed = Uri.parse(text)
    assert (parsed.scheme, parsed.host, parsed.path) == (scheme, host, path)
    assert path in parsed.readings


def test_readings_hold_the_path_with_and_without_what_follows_and_below_the_host():
    assert Uri.parse("file://h/a#b").readings == ("/a#b", "/a", "/h/a#b", "/h/a")
    assert Uri.parse("file:///a").readings == ("/a",)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b%20c.py", Path("/a/b c.py")),
        ("file://localhost/a.py", Path("/a.py")),
        ("file://server/share/a.py", None),
        ("file:///a#b/c.py", Path("/a#b/c.py")),
        ("file:///a%00.py", None),
        ("file:a.py", None),
        ("untitled:Untitled-1", None),
        ("vscode-notebook-cell:/a#1", None),
        ("file://[", None),
        ("", None),
    ],
)
def test_path_of_a_document(uri: str, path: Path | None):
    assert path_of(uri) == path


@pytest.mark.parametrize(
    ("uri", "roots", "shown"),
    [
        ("file:///w/a/b.py", ["file:///w"], "a/b.py"),
        ("file:///w/a/b.py", ["file:///w", "file:///w/a"], "b.py"),
        ("file:///w/c#/b.py", ["file:///w/c#"], "b.py"),
        ("file:///w/100%25/b.py", ["file:///w/100%25"], "b.py"),
        ("file:///w/b.py", ["file://[x"], "b.py"),
        ("file://[x/a.py", ["file:///w"], "a.py"),
        ("file:///w/%ff.py", ["file:///w"], "?.py"),
        ("file:///w/\ud800.py", ["file:///w"], "?.py"),
    ],
)
def test_shown_path(uri: str, roots: list[str], shown: str):
    assert shown_path(uri, tuple(roots)) == shown


@pytest.mark.parametrize(
    ("uri", "roots", "folder"),
    [
        ("file:///w/a/b.py", ["file:///w"], "/w/a"),
        ("file:///w/%ff/b.py", [], "/w/\udcff"),
        ("untitled:Untitled-1", ["ssh://host/x", "file:///w", "file:///v"], "/w"),
        ("vscode-notebook-cell:/w/a.ipynb#1", ["file:///w"], "/w"),
        ("untitled:Untitled-1", [], ""),
    ],
)
def test_folder_of_a_document(uri: str, roots: list[str], folder: str):
    assert folder_of(uri, tuple(roots)) == folder
    assert folder_of(uri, tuple(roots), PathStyle.WINDOWS) == ""


def test_no_text_is_refused_and_every_shown_path_can_be_encoded():
    rng = random.Random(5)
    for _ in range(5_000):
        uri, root = ("".join(rng.choices(PIECES, k=rng.randint(0, 8))) for _ in range(2))
        shown_path(uri, (root,)).encode("utf-8")
        path_of(uri)
