"""Notebooks, several folders, and documents that are no files, over stdio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from tests.lsp.editor import Editor, editing
from tests.lsp.waiting import until

pytestmark = pytest.mark.e2e
NOTEBOOK = "file:///w/a.ipynb"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


def cell(name: str) -> str:
    return f"vscode-notebook-cell:/w/a.ipynb#{name}"


def item(name: str, text: str, language: str = "python") -> types.TextDocumentItem:
    return types.TextDocumentItem(uri=cell(name), language_id=language, version=1, text=text)


def open_notebook(editor: Editor, *items: types.TextDocumentItem, uri: str = NOTEBOOK) -> None:
    cells = [types.NotebookCell(kind=types.NotebookCellKind.Code, document=one.uri) for one in items]
    document = types.NotebookDocument(uri=uri, notebook_type="jupyter-notebook", version=1, cells=cells)
    editor.client.notebook_document_did_open(
        types.DidOpenNotebookDocumentParams(notebook_document=document, cell_text_documents=list(items))
    )


def change(editor: Editor, **cells: Any) -> None:
    editor.client.notebook_document_did_change(
        types.DidChangeNotebookDocumentParams(
            notebook_document=types.VersionedNotebookDocumentIdentifier(uri=NOTEBOOK, version=2),
            change=types.NotebookDocumentChangeEvent(cells=types.NotebookDocumentCellChanges(**cells)),
        )
    )


async def test_notebooks_are_announced(record: Path):
    async with editing(record, notebooks=True) as editor:
        assert editor.result is not None
        sync = editor.result.capabilities.notebook_document_sync
        assert isinstance(sync, types.NotebookDocumentSyncOptions)
        (selector,) = sync.notebook_selector
        assert isinstance(selector, types.NotebookDocumentFilterWithNotebook)
        assert selector.notebook == "*"
        folders = editor.result.capabilities.workspace.workspace_folders
        assert folders.supported and folders.change_notifications


async def test_cell_is_completed_with_the_cells_before_it_and_edited_alone(record: Path):
    async with editing(record, notebooks=True, answers={"width = 3\n\narea = ": "width * 2"}) as editor:
        open_notebook(editor, item("1", "width = 3\n"), item("2", "area = "), item("3", "print(area)"))
        (offered,) = await editor.ask(types.Position(line=0, character=7), uri=cell("2"))
        assert offered.insert_text == "area = width * 2"
        assert offered.range == types.Range(types.Position(0, 0), types.Position(0, 7))


async def test_cell_is_filled_with_the_cells_before_it(record: Path):
    async with editing(record, notebooks=True, answers={"width = 3\n\narea = ": "width * 2"}) as editor:
        open_notebook(editor, item("1", "width = 3\n"), item("2", "area = 1"), item("3", "print(area)"))
        place = {"start": {"line": 0, "character": 7}, "end": {"line": 0, "character": 8}}
        question = {"textDocument": {"uri": cell("2"), "version": 1}, "range": place, "kind": "selection"}
        answer = await editor.client.protocol.send_request_async("dgemma/fill", question)
        assert [candidate.newText for candidate in answer.candidates] == ["width * 2"]


async def test_cells_are_edited_added_and_closed(record: Path):
    async with editing(record, notebooks=True, answers={"height = 5\n\narea = ": "1", "alone = ": "2"}) as editor:
        open_notebook(editor, item("1", "width = 3"), item("2", "area "))
        structure = types.NotebookDocumentCellChangeStructure(
            array=types.NotebookCellArrayChange(
                start=1,
                delete_count=0,
                cells=[types.NotebookCell(kind=types.NotebookCellKind.Code, document=cell("new"))],
            ),
            did_open=[item("new", "height = 4")],
        )
        change(editor, structure=structure)
        for name, start, end, text in (("new", 9, 10, "5"), ("2", 5, 5, "= ")):
            span = types.Range(types.Position(0, start), types.Position(0, end))
            edit = types.TextDocumentContentChangePartial(range=span, text=text)
            identifier = types.VersionedTextDocumentIdentifier(uri=cell(name), version=2)
            change(editor, text_content=[types.NotebookDocumentCellContentChanges(document=identifier, changes=[edit])])
        (offered,) = await editor.ask(types.Position(line=0, character=7), uri=cell("2"))
        assert offered.insert_text == "area = 1"
        editor.client.notebook_document_did_close(
            types.DidCloseNotebookDocumentParams(
                notebook_document=types.NotebookDocumentIdentifier(uri=NOTEBOOK), cell_text_documents=[]
            )
        )
        assert await editor.ask(types.Position(line=0, character=7), uri=cell("2")) == []


async def test_cell_is_as_private_as_its_file(record: Path, tmp_path: Path):
    (tmp_path / ".dgemmaignore").write_text("*.ipynb\n")
    async with editing(record, notebooks=True, answers={"": "1"}) as editor:
        open_notebook(editor, item("1", "x = "), uri=(tmp_path / "a.ipynb").as_uri())
        assert await editor.ask(types.Position(line=0, character=4), uri=cell("1")) == []
        assert "*.ipynb" in editor.statuses[-1].reason


async def test_cell_with_a_private_key_is_not_read(record: Path):
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n"
    async with editing(record, notebooks=True, answers={"b3Bl\n\nx = ": "1"}) as editor:
        open_notebook(editor, item("1", key), item("2", "x = "))
        assert await editor.ask(types.Position(line=0, character=4), uri=cell("2")) == []
        assert "asked x = " in editor.events()


async def test_changes_of_a_notebook_that_is_not_open_are_ignored(record: Path):
    async with editing(record, notebooks=True, answers={"x = ": "1"}) as editor:
        array = types.NotebookCellArrayChange(start=7, delete_count=9)
        change(editor, structure=types.NotebookDocumentCellChangeStructure(array=array))
        identifier = types.VersionedTextDocumentIdentifier(uri=cell("1"), version=2)
        whole = types.TextDocumentContentChangeWholeDocument(text="y")
        change(editor, text_content=[types.NotebookDocumentCellContentChanges(document=identifier, changes=[whole])])
        assert len(await editor.ask(editor.open("x = |"))) == 1


@pytest.mark.parametrize("uri", ["untitled:Untitled-1", "git:/w/a.py?ref", "zip:///w/a.zip!/b.py", "x"])
async def test_document_that_is_no_file_is_completed(record: Path, uri: str):
    async with editing(record, answers={"x = ": "1"}) as editor:
        assert len(await editor.ask(editor.open("x = |", uri=uri), uri=uri)) == 1


async def test_untitled_document_is_private_by_its_name(record: Path):
    async with editing(record, answers={"": "1"}) as editor:
        uri = "untitled:/w/.env"
        assert await editor.ask(editor.open("KEY=|", uri=uri), uri=uri) == []
        assert editor.statuses[-1].kind == "inactive"


async def test_folders_come_and_go(record: Path):
    async with editing(record, answers={"": "1"}) as editor:

        async def shown(uri: str, marked: str) -> str:
            await editor.ask(editor.open(marked, uri=uri), uri=uri)
            await until(lambda: any(event.startswith("path ") for event in editor.events()))
            return [event for event in editor.events() if event.startswith("path ")][-1]

        assert await shown("file:///w/one/two/a.py", "PATH x = |") == "path one/two/a.py"
        added = [types.WorkspaceFolder(uri=uri, name="n") for uri in ("file:///w", "file:///w/one")]
        event = types.WorkspaceFoldersChangeEvent(added=added, removed=[])
        editor.client.workspace_did_change_workspace_folders(types.DidChangeWorkspaceFoldersParams(event=event))
        assert await shown("file:///w/one/two/a.py", "PATH y = |") == "path two/a.py", "of the innermost folder"
        event = types.WorkspaceFoldersChangeEvent(added=[], removed=added[1:])
        editor.client.workspace_did_change_workspace_folders(types.DidChangeWorkspaceFoldersParams(event=event))
        assert await shown("file:///w/one/two/a.py", "PATH z = |") == "path one/two/a.py"
