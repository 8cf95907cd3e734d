"""URIs that no editor should send, of documents and of folders: items or an empty list, never an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from tests.lsp.editor import Editor, editing

pytestmark = pytest.mark.e2e

ODD = [
    *("file://[x/a.py", "file://[::1", "file://]/a.py", "file:///%zz", "file:///w/%", "file:", "file://", "file:///"),
    *("", "/", "//", "//x", "w/a.py", "x:y:z", ":", "http://[bad", "file:///w/\0.py", "file:///w/a%00.py", "\ud800"),
    *("file:///w/\udcff.py", "file:///w/%ff.py", "file://server/share/a.py", "file://u:p@h:99999999/a.py", "\u2028"),
    *(
        "file:////server/share/a.py",
        "file:///C:/a.py",
        "c:\\a.py",
        "file:///w/a.py#x",
        "file:///w/a.py?x",
        "file:\\\\x",
    ),
    *("untitled:", "vscode-notebook-cell:#", "file:///w/" + "a" * 100_000, "file:///" + "a/" * 50_000, "%" * 100_000),
    *("file://" + "[" * 100_000, "x" * 100_000, "file:///w/" + "../" * 30_000 + "a.py", "file:///w/" + "%2F" * 30_000),
]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


def fill(uri: str, version: int) -> dict[str, Any]:
    place = {"line": 0, "character": 4}
    document = {"uri": uri, "version": version}
    return {"textDocument": document, "range": {"start": place, "end": place}, "kind": "selection"}


async def lives(editor: Editor) -> None:
    assert len(await editor.ask(editor.open("x = |"))) == 1


async def test_documents_of_odd_uris_are_answered(record: Path):
    async with editing(record, answers={"x = ": "1"}) as editor:
        for uri in ODD:
            position = editor.open("x = |", uri=uri)
            assert len(await editor.ask(position, uri=uri)) <= 1
            version = editor._version
            answer = await editor.client.protocol.send_request_async("dgemma/fill", fill(uri, version))
            assert isinstance(answer.candidates, list)
        await lives(editor)


async def test_requests_with_workspace_folders_of_odd_uris_are_answered(record: Path):
    async with editing(record, answers={"x = ": "1"}, folders=ODD) as editor:
        await lives(editor)
        folders = [types.WorkspaceFolder(uri=uri, name="") for uri in ODD]
        event = types.WorkspaceFoldersChangeEvent(added=folders[1:], removed=folders[:1])
        editor.client.workspace_did_change_workspace_folders(types.DidChangeWorkspaceFoldersParams(event=event))
        await lives(editor)


@pytest.mark.parametrize("root", ["file://[x", "\ud800"])
async def test_session_with_an_odd_root_starts(record: Path, root: str):
    async with editing(record, answers={"x = ": "1"}, root=root) as editor:
        await lives(editor)


@pytest.mark.parametrize("root_path", ["//x", "\ud800"])
async def test_session_with_an_odd_root_path_starts(record: Path, root_path: str):
    async with editing(record, answers={"x = ": "1"}, root=None, root_path=root_path) as editor:
        await lives(editor)


async def test_folder_is_decoded_once(record: Path):
    async with editing(record, answers={"PATH = ": "1"}, folders=["file:///w/100%2525"]) as editor:
        uri = "file:///w/100%2525/a.py"
        await editor.ask(editor.open("PATH = |", uri=uri), uri=uri)
        assert "path a.py" in editor.events()
        other = "file:///w/100%25/b.py"
        await editor.ask(editor.open("PATH = |", uri=other), uri=other)
        assert "path b.py" in editor.events(), "of no folder: the name only"
