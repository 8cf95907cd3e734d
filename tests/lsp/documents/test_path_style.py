from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from dgemma_engine.path_style import PathStyle

from dgemma_lsp.documents.uri import Uri, path_of
from dgemma_lsp.server.conversions import shown_path
from dgemma_lsp.server.decoding import decoded

POSIX, WINDOWS = PathStyle.POSIX, PathStyle.WINDOWS


@pytest.mark.parametrize(
    ("native", "comparable"),
    [
        (r"C:\w\a.py", "/c:/w/a.py"),
        ("c:/w/a.py", "/c:/w/a.py"),
        ("C:\\", "/c:/"),
        (r"\\?\C:\w\a.py", "/c:/w/a.py"),
        (r"\\server\share\a.py", "//server/share/a.py"),
        (r"\\?\UNC\server\share\a.py", "//server/share/a.py"),
    ],
)
def test_native_path_of_windows_is_made_comparable_and_back(native: str, comparable: str) -> None:
    assert WINDOWS.comparable(native) == comparable
    assert WINDOWS.pure(WINDOWS.native(comparable)) == WINDOWS.pure(
        native.replace("\\\\?\\UNC", "\\").replace("\\\\?\\", "")
    )


@pytest.mark.parametrize("path", ["/w/a.py", "/c:/w/a.py", "/C:/w", "//server/share", "/a\\b", "/"])
def test_paths_of_posix_stay_as_they_are(path: str) -> None:
    assert POSIX.comparable(path) == POSIX.native(path) == POSIX.folded(path) == path
    assert POSIX.one_spelling(f"file://{path}") == f"file://{path}"


@pytest.mark.parametrize("path", ["/", "/w/a.py", "a.py", "//"])
def test_path_without_a_drive_is_no_file_of_windows(path: str) -> None:
    assert WINDOWS.native(path) == ""


@pytest.mark.parametrize(
    ("path", "normalized"),
    [
        ("/C:/w/../a.py", "/c:/a.py"),
        ("/c:/w\\.env", "/c:/w/.env"),
        ("//server/share/x/../.env", "//server/share/.env"),
        ("/c:/../../.env", "/.env"),
    ],
)
def test_comparable_path_is_normalized(path: str, normalized: str) -> None:
    assert WINDOWS.normalized(path) == normalized


@pytest.mark.parametrize(
    ("uri", "spelled"),
    [
        ("file:///c%3A/w/a.py", "file:///c%3A/w/a.py"),
        ("file:///C%3a/w/a.py", "file:///c%3A/w/a.py"),
        ("file:///C:/w/a%20b.py", "file:///c%3A/w/a%20b.py"),
        ("FILE://localhost/C:/w/a.py", "file:///c%3A/w/a.py"),
        ("file:/C:/w/a.py", "file:///c%3A/w/a.py"),
        ("file:///C:", "file:///c%3A"),
        (r"C:\w\a b.py", "file:///c%3A/w/a%20b.py"),
        ("file://SERVER/Share/a.py", "file://server/Share/a.py"),
        ("vscode-notebook-cell:/C:/w/a.ipynb#W0", "vscode-notebook-cell:///c%3A/w/a.ipynb#W0"),
        ("vscode-notebook-cell:///c%3A/w/a.ipynb#W0", "vscode-notebook-cell:///c%3A/w/a.ipynb#W0"),
        ("untitled:Untitled-1", "untitled:Untitled-1"),
        ("file:///w/a.py", "file:///w/a.py"),
        ("file:///cd:/w", "file:///cd:/w"),
        ("", ""),
    ],
)
def test_document_has_one_spelling(uri: str, spelled: str) -> None:
    assert WINDOWS.one_spelling(uri) == spelled
    assert WINDOWS.one_spelling(spelled) == spelled


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///c%3A/w/a.py", "c:/w/a.py"),
        ("file:///C:/w/a.py", "c:/w/a.py"),
        ("file://server/share/a.py", "//server/share/a.py"),
        ("file:///w/a.py", None),
        ("untitled:c:/w/a.py", None),
        ("file:///c%3A/w/%00", None),
    ],
)
def test_file_of_windows(uri: str, path: str | None) -> None:
    assert path_of(uri, WINDOWS) == (None if path is None else Path(path))


def test_root_path_of_windows_becomes_a_uri() -> None:
    assert Uri.of_path(r"C:\w", WINDOWS).spelled == "file:/c%3A/w"


@pytest.mark.parametrize(
    ("uri", "roots", "shown"),
    [
        ("file:///c%3A/w/src/a.py", ["file:///C:/w"], "src/a.py"),
        ("file:///c%3A/W/Src/a.py", ["file:///c%3A/w"], "Src/a.py"),
        ("file:///d%3A/w/a.py", ["file:///c%3A/w"], "a.py"),
        ("file://server/share/w/a.py", ["file://SERVER/Share"], "w/a.py"),
        ("file:///c%3A/w/in/a.py", ["file:///c%3A/w", "file:///C:/w/in"], "a.py"),
        ("untitled:Untitled-1", ["file:///c%3A/w"], "Untitled-1"),
    ],
)
def test_shown_path_is_relative_to_its_folder_whatever_the_case(uri: str, roots: list[str], shown: str) -> None:
    assert shown_path(uri, tuple(roots), WINDOWS) == shown


def test_every_uri_of_a_message_gets_one_spelling() -> None:
    body = (
        b'{"method": "x", "params": {"rootUri": "file:///C:/w", "textDocument": {"uri": "file:///C:/a", "text": "file:///C:/"},'
        b' "cells": [{"document": "file:///C:/b", "uri": 7}], "changes": {"file:///C:/c": []}}}'
    )
    message, is_whole = decoded(body, WINDOWS)
    assert is_whole
    assert message["params"] == {
        "rootUri": "file:///c%3A/w",
        "textDocument": {"uri": "file:///c%3A/a", "text": "file:///C:/"},
        "cells": [{"document": "file:///c%3A/b", "uri": 7}],
        "changes": {"file:///C:/c": []},
    }
    assert decoded(body, POSIX)[0]["params"]["rootUri"] == "file:///C:/w"


def test_pure_paths_compare_as_the_system_does() -> None:
    assert WINDOWS.pure("c:/W") == WINDOWS.pure("C:\\w")
    assert POSIX.pure is PurePosixPath
