"""The server's side of the protocol: messages about documents in, changes of our own documents out.

`AnsweringProtocol` makes the responses. A notification that cannot be read leaves its document out of step: nothing is
offered there until the editor sends the whole text again.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

from lsprotocol import types
from pygls.protocol import lsp_method

from dgemma_lsp import __version__
from dgemma_lsp.server import conversions
from dgemma_lsp.server.copilot.handlers import NOTIFICATIONS
from dgemma_lsp.server.fill_conversions import field
from dgemma_lsp.server.notebook_handlers import NotebookProtocol
from dgemma_lsp.settings.settings import SECTION

_log = logging.getLogger(__name__)

# Counts up when one of our own messages changes so that an older editor extension cannot read it.
PROTOCOL = 1

_OF_DOCUMENTS = {types.TEXT_DOCUMENT_DID_OPEN, types.TEXT_DOCUMENT_DID_CHANGE}
_OF_NOTEBOOKS = {types.NOTEBOOK_DOCUMENT_DID_OPEN, types.NOTEBOOK_DOCUMENT_DID_CHANGE}


class DgemmaProtocol(NotebookProtocol):
    """pygls's protocol over our own documents."""

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> Generator[Any, Any, None]:
        """Opens a document."""
        self._ls.session.documents.open(conversions.to_document(params.text_document))
        yield from ()

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> Generator[Any, Any, None]:
        """Applies edits."""
        document = params.text_document
        edits = [conversions.to_edit(change) for change in params.content_changes]
        if not self._ls.session.change(document.uri, document.version, edits, self._ls.encoding):
            _log.warning("ignored an edit of a document that is not open, or out of step")
        yield from ()

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> Generator[Any, Any, None]:
        """Closes a document."""
        self._ls.session.close_document(params.text_document.uri)
        yield from ()

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        """Adds the versions of the server and of our own messages to the result."""
        params.root_uri, params.root_path = conversions.to_root(params), None
        result = yield from super().lsp_initialize(params)
        result.capabilities.experimental = {SECTION: {"version": __version__, "protocol": PROTOCOL}}
        return result

    @lsp_method(types.WORKSPACE_EXECUTE_COMMAND)
    def lsp_workspace__execute_command(self, params: types.ExecuteCommandParams) -> Generator[Any, Any, Any]:
        """Runs a command; pygls checks the number of arguments only where there is a list of them."""
        params.arguments = params.arguments or []
        return (yield from super().lsp_workspace__execute_command(params))

    def _run_generator(
        self, future: Future[Any] | None, *, gen: Generator[Any, Any, Any], result_future: Future[Any]
    ) -> None:
        """Runs a handler up to where it waits for another.

        pygls turns the cancellation of that other handler into an error of the event loop and leaves the waiting one
        unanswered; an error of a handler that nothing waits for any more becomes an error of the loop too.
        """
        if future is not None and future.cancelled():
            gen.close()
            result_future.cancel()
        elif future is not None and result_future.cancelled():
            future.exception()
        else:
            super()._run_generator(future, gen=gen, result_future=result_future)

    def _notifies(self, method: object) -> bool:
        return method in NOTIFICATIONS or super()._notifies(method)

    def message_lost(self, method: str | None, params: object) -> None:
        """Marks the documents that a lost message may have been about as out of step."""
        session = self._ls.session
        if method in _OF_NOTEBOOKS:
            uri = _uri(params, "notebookDocument")
            session.lose(self._every_uri() if uri is None else session.notebooks.cells(uri))
        elif method is None or method in _OF_DOCUMENTS:
            uri = _uri(params, "textDocument")
            session.lose(self._every_uri() if uri is None else [uri])

    def _every_uri(self) -> list[str]:
        return [document.uri for document in self._ls.session.documents.all()]


def _uri(params: object, name: str) -> str | None:
    """Returns the uri of the document that the parameters of a notification name; None where they name none."""
    uri = field(field(params, name, None), "uri", None)
    return uri if isinstance(uri, str) else None
