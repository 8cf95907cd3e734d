"""An editor's part in fills: code actions, the request, the command, edits that it applies or refuses."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from lsprotocol import types

from dgemma_lsp.documents.positions import LineIndex
from tests.lsp.editor import URI, Editor


@dataclass
class FillEditor:
    """An `Editor` with the text of one document."""

    editor: Editor
    text: str = ""
    version: int = 0
    applies: bool = True
    edits: list[types.WorkspaceEdit] = field(default_factory=list[types.WorkspaceEdit])

    def __post_init__(self) -> None:
        # lsprotocol takes every code action that has a command for a command.
        self.editor.client.protocol._converter.register_structure_hook(
            types.Command | types.CodeAction, lambda wire, _: wire
        )
        self.editor.client.feature("workspace/applyEdit")(lambda params: self._apply(params))

    def _apply(self, params: types.ApplyWorkspaceEditParams) -> types.ApplyWorkspaceEditResult:
        self.edits.append(params.edit)
        return types.ApplyWorkspaceEditResult(applied=self.applies)

    def open(self, marked: str, *, uri: str = URI, language: str = "python") -> types.Range:
        """Opens a document; returns the range between its two `|`, or at its one."""
        before, selected, after = (*marked.split("|"), "", "")[:3] if marked.count("|") < 2 else marked.split("|")
        if marked.count("|") == 1:
            selected, after = "", selected
        self.text, self.version = before + selected + after, self.version + 1
        item = types.TextDocumentItem(uri=uri, language_id=language, version=self.version, text=self.text)
        self.editor.client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))
        return types.Range(
            start=self.editor.position(self.text, len(before)),
            end=self.editor.position(self.text, len(before + selected)),
        )

    def close(self) -> None:
        """Closes the document."""
        document = types.TextDocumentIdentifier(uri=URI)
        self.editor.client.text_document_did_close(types.DidCloseTextDocumentParams(text_document=document))

    async def actions(self, span: types.Range, *, only: list[str] | None = None, uri: str = URI) -> list[Any]:
        context = types.CodeActionContext(diagnostics=[], only=only)
        params = types.CodeActionParams(
            text_document=types.TextDocumentIdentifier(uri=uri), range=span, context=context
        )
        found = await self.editor.client.text_document_code_action_async(params)
        assert found is not None, "an empty list, never null"
        return list(found)

    def send(
        self, span: types.Range, kind: str = "selection", *, msg_id: str | None = None, **other: Any
    ) -> Future[Any]:
        return self.editor.client.protocol.send_request("dgemma/fill", self.params(span, kind, **other), msg_id=msg_id)

    async def fill(self, span: types.Range, *, kind: str = "selection", **other: Any) -> Any:
        return await asyncio.wait_for(asyncio.wrap_future(self.send(span, kind, **other)), 30)

    async def run(self, span: types.Range, *, kind: str = "selection", **other: Any) -> Any:
        """Runs the command, as a client without our plugin does."""
        params = types.ExecuteCommandParams(command="dgemma.fill", arguments=[self.params(span, kind, **other)])
        return await asyncio.wait_for(self.editor.client.workspace_execute_command_async(params), 30)

    def params(
        self, span: types.Range, kind: str, *, uri: str = URI, version: Any = "", **other: Any
    ) -> dict[str, Any]:
        ends = {
            name: {"line": place.line, "character": place.character}
            for name, place in (("start", span.start), ("end", span.end))
        }
        document = {"uri": uri, "version": self.version if version == "" else version}
        return {"textDocument": document, "range": ends, "kind": kind} | other

    def applied(self, result: Any, candidate: int = 0) -> str:
        """Returns what the text becomes when a candidate is chosen."""
        lines = LineIndex(self.text)
        places = (result.range.start, result.range.end)
        start, end = (lines.offset(at.line, at.character, self.editor.encoding) for at in places)
        return self.text[:start] + result.candidates[candidate].newText + self.text[end:]

    def messages(self) -> list[str]:
        """Returns the messages that the user was shown."""
        return [message.message for message in self.editor.client.messages]
