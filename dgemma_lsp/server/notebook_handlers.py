"""Notebook messages in, changes of cells out: a part of the server's protocol. Cells are completed like documents."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from typing import Any, Protocol, cast

from lsprotocol import types
from pygls.protocol import lsp_method

from dgemma_lsp.documents.notebooks import Cell
from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.server import conversions
from dgemma_lsp.server.json_rpc import AnsweringProtocol
from dgemma_lsp.session import Session

_log = logging.getLogger(__name__)

# Every notebook, and all of its cells.
SYNC = types.NotebookDocumentSyncOptions(notebook_selector=[types.NotebookDocumentFilterWithNotebook(notebook="*")])


class _NotebookServer(Protocol):
    session: Session
    encoding: PositionEncoding


class NotebookProtocol(AnsweringProtocol):
    """pygls's protocol with cells in our own documents."""

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_OPEN)
    def lsp_notebook_document__did_open(self, params: types.DidOpenNotebookDocumentParams) -> Generator[Any, Any, None]:
        """Takes a notebook in."""
        session = self._notebook_server.session
        for item in params.cell_text_documents:
            session.documents.open(conversions.to_document(item))
        session.notebooks.open(params.notebook_document.uri, _cells(params.notebook_document.cells))
        yield from ()

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_CHANGE)
    def lsp_notebook_document__did_change(
        self, params: types.DidChangeNotebookDocumentParams
    ) -> Generator[Any, Any, None]:
        """Adds and removes cells, and applies edits in them."""
        server, uri, changed = self._notebook_server, params.notebook_document.uri, params.change.cells
        if changed is not None and changed.structure is not None:
            array = changed.structure.array
            for item in changed.structure.did_open or ():
                server.session.documents.open(conversions.to_document(item))
            if not server.session.notebooks.splice(uri, array.start, array.delete_count, _cells(array.cells or ())):
                _log.warning("ignored a change of a notebook that is not open")
            for identifier in changed.structure.did_close or ():
                server.session.close_document(identifier.uri)
        for content in (changed.text_content or ()) if changed is not None else ():
            document, edits = content.document, [conversions.to_edit(change) for change in content.changes]
            if not server.session.change(document.uri, document.version, edits, server.encoding):
                _log.warning("ignored an edit of a cell that is not open, or out of step")
        yield from ()

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_CLOSE)
    def lsp_notebook_document__did_close(
        self, params: types.DidCloseNotebookDocumentParams
    ) -> Generator[Any, Any, None]:
        """Forgets a notebook and its cells."""
        session = self._notebook_server.session
        uris = session.notebooks.close(params.notebook_document.uri)
        for uri in dict.fromkeys([*uris, *(identifier.uri for identifier in params.cell_text_documents)]):
            session.close_document(uri)
        yield from ()

    @property
    def _notebook_server(self) -> _NotebookServer:
        return cast("_NotebookServer", self._server)


def _cells(cells: Iterable[types.NotebookCell]) -> list[Cell]:
    return [Cell(uri=cell.document, is_code=cell.kind is types.NotebookCellKind.Code) for cell in cells]
