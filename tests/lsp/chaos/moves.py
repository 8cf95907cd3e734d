"""Moves of a client in documents, and its requests there: half of the state machine.

No move depends on the server's answers or their timing, so that a session can be replayed.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.lsp.chaos import messages as say
from tests.lsp.chaos.client import ABSENT, ChaosClient
from tests.lsp.chaos.ledger import Asked

_URI = st.sampled_from(say.URIS)
_WORK_URI = st.sampled_from(say.URIS[:2])
_SOME = st.sampled_from
_YES = st.booleans()
_TOKEN = _SOME(["command", "command", "command", *say.TOKENS])


class DocumentMoves(RuleBasedStateMachine):
    """Opens, changes, closes and asks.

    Args:
        client: makes the moves.
    """

    def __init__(self, client: ChaosClient) -> None:
        super().__init__()
        self._client = client
        self._version = 1

    @rule(uri=_URI, text=_SOME(say.TEXTS), language=_SOME(say.LANGUAGES), version=_SOME([1, -1, None, "1"]))
    def open(self, uri: str, text: str, language: str, version: Any) -> None:
        item = {"uri": uri, "languageId": language, "version": version, "text": text}
        self._client.notify("didOpen", "textDocument/didOpen", {"textDocument": item})

    @rule(uri=_URI, span=_SOME(say.RANGES), text=_SOME(["a", "", "\n", "😀", "\r\n", "(", "LATER"]), whole=_YES)
    def change(self, uri: str, span: Any, text: str, whole: bool) -> None:
        self._change(uri, [{"text": text}] if whole else [{"range": span, "text": text}], self._next_version())

    @rule(
        uri=_URI, span=_SOME(say.BAD_RANGES), version=_SOME([7, 0, -7, None, "newest", 1.5]), text=_SOME(["a", None, 7])
    )
    def change_badly(self, uri: str, span: Any, version: Any, text: Any) -> None:
        self._change(uri, [{"range": span, "text": text}], version)

    @rule(uri=_URI)
    def close(self, uri: str) -> None:
        self._client.notify("didClose", "textDocument/didClose", {"textDocument": {"uri": uri}})

    @rule(move=_SOME(["open", "add", "edit", "remove", "close", "badly"]), cell=_SOME([5, 0]))
    def notebook(self, move: str, cell: int) -> None:
        uri = {"uri": f"{say.FOLDER}/n.ipynb"}
        cells = [{"kind": 2, "document": say.URIS[cell]}]
        item = {"uri": say.URIS[cell], "languageId": "python", "version": 1, "text": "x = "}
        versioned = uri | {"version": self._next_version()}
        structure: dict[str, Any] = {"array": {"start": 0, "deleteCount": 0, "cells": cells}, "didOpen": [item]}
        changes = {
            "add": {"structure": structure},
            "edit": {
                "textContent": [{"document": {"uri": say.URIS[cell], "version": 7}, "changes": [{"text": "y = "}]}]
            },
            "remove": {"structure": {"array": {"start": 0, "deleteCount": 9}, "didClose": [{"uri": say.URIS[cell]}]}},
            "badly": {"structure": {"array": {"start": 2**32 - 1, "deleteCount": -1}, "didClose": [None]}},
        }
        if move == "open":
            document = uri | {"notebookType": "jupyter-notebook", "version": 1, "cells": cells}
            params: Any = {"notebookDocument": document, "cellTextDocuments": [item]}
            self._client.notify("notebook", "notebookDocument/didOpen", params)
        elif move == "close":
            params = {"notebookDocument": uri, "cellTextDocuments": [{"uri": say.URIS[cell]}]}
            self._client.notify("notebook", "notebookDocument/didClose", params)
        else:
            params = {"notebookDocument": versioned, "change": {"cells": changes[move]}}
            self._client.notify("notebook", "notebookDocument/didChange", params)

    @rule(uri=_URI, place=_SOME(say.POSITIONS), trigger=_SOME([1, 2, 7]), as_text=_YES)
    def ask(self, uri: str, place: Any, trigger: int, as_text: bool) -> None:
        params = {"textDocument": {"uri": uri}, "position": place, "context": {"triggerKind": trigger}}
        self._ask(params, say.ANSWERED, as_text=as_text)

    @rule(uri=_WORK_URI, text=_SOME(say.WORK), typed=_SOME(["", "a", "al", "\n"]), trigger=_SOME([1, 2]), often=_YES)
    def type_and_ask(self, uri: str, text: str, typed: str, trigger: int, often: bool) -> None:
        """Types, asks after each key or after the last, and accepts the answer."""
        self.open(uri, text, "python", self._next_version())
        place = _end(text)
        for key in typed:
            self._change(uri, [{"range": {"start": place, "end": place}, "text": key}], self._next_version())
            text += key
            place = _end(text)
            if often:
                self.ask(uri, place, trigger, as_text=False)
        self.ask(uri, place, trigger, as_text=True)
        self._client.settle()
        self.execute(("dgemma.accepted", [1], say.MAY_FAIL))

    @rule(uri=_WORK_URI, text=_SOME(say.WORK), then=_SOME(["menu", "fill", "denoise"]))
    def work(self, uri: str, text: str, then: str) -> None:
        """Opens a document and asks for its menu, a preview or a fill."""
        self.open(uri, text, "python", self._next_version())
        place = _end(text)
        if then == "menu":
            self.menu(uri, place)
        elif then == "denoise":
            self.denoise(uri, place, ABSENT)
        else:
            whole = {"start": say.FIRST, "end": place}
            self.fill(uri, whole, "selection", self._version, "command")
            self.fill(uri, whole, "selection", self._version, "t")
            self.code_action(uri, whole, ABSENT)

    @rule(uri=_URI, num=_SOME([2, 3, 8]), edits=_YES)
    def ask_often(self, uri: str, num: int, edits: bool) -> None:
        for column in range(num):
            if edits:
                self._change(uri, [{"range": say.RANGES[0], "text": "a"}], self._next_version())
            place = {"line": 0, "character": 4 + column}
            params = {"textDocument": {"uri": uri}, "position": place, "context": {"triggerKind": 2}}
            self._ask(params, say.ANSWERED, as_text=False)

    @rule(place=_SOME(say.BAD_POSITIONS), context=_SOME([{"triggerKind": 1}, None, {}, {"triggerKind": "1"}]))
    def ask_badly(self, place: Any, context: Any) -> None:
        self._ask(say.HERE | {"position": place, "context": context}, say.REFUSED, as_text=False)

    @rule(
        place=_SOME(say.ODD_POSITIONS),
        selected=_SOME([None, {"range": say.RANGES[0], "text": "a"}, {"range": None}, 7]),
    )
    def ask_oddly(self, place: Any, selected: Any) -> None:
        context = {"triggerKind": 1, "selectedCompletionInfo": selected}
        self._ask(say.HERE | {"position": place, "context": context}, say.EITHER, as_text=False)

    @rule(uri=_URI, place=_SOME(say.POSITIONS))
    def menu(self, uri: str, place: Any) -> None:
        params = {"textDocument": {"uri": uri}, "position": place, "context": {"triggerKind": 1}}
        self._client.request("completion", "textDocument/completion", params, legal=say.ANSWERED | say.NOT_FOUND)

    @rule(uri=_URI, span=_SOME(say.RANGES), only=_SOME([ABSENT, None, ["refactor"], ["x.y", ""]]))
    def code_action(self, uri: str, span: Any, only: Any) -> None:
        context = {"diagnostics": []} | ({} if only is ABSENT else {"only": only})
        params = {"textDocument": {"uri": uri}, "range": span, "context": context}
        self._client.request("codeAction", "textDocument/codeAction", params, legal=say.ANSWERED, fits=is_list)

    @rule(command=_SOME(say.COMMANDS))
    def execute(self, command: Any) -> None:
        name, arguments, legal = command
        params = {"command": name, "arguments": arguments}
        self._client.request("executeCommand", "workspace/executeCommand", params, legal=legal)

    @rule(uri=_URI, span=_SOME(say.RANGES), kind=_SOME(say.FILL_KINDS), version=_SOME([None, 1, 9]), token=_TOKEN)
    def fill(self, uri: str, span: Any, kind: str, version: Any, token: Any) -> None:
        params: dict[str, Any] = {"textDocument": {"uri": uri, "version": version}, "range": span, "kind": kind}
        if token == "command":
            whole = {"command": "dgemma.fill", "arguments": [params]}
            self._client.request(
                "fill command", "workspace/executeCommand", whole, legal=say.MAY_FAIL, waits_for_editor=True
            )
        else:
            self._client.request("fill", "dgemma/fill", params | {"workDoneToken": token}, legal=say.MAY_FAIL)

    @rule(uri=_URI, place=_SOME(say.POSITIONS), version=_SOME([ABSENT, None, 1]))
    def denoise(self, uri: str, place: Any, version: Any) -> None:
        document = {"uri": uri} | ({} if version is ABSENT else {"version": version})
        params = {"textDocument": document, "position": place, "token": "t"}
        self._client.request("denoise", "dgemma/denoise", params, legal=say.MAY_FAIL)

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _change(self, uri: str, changes: list[Any], version: Any) -> None:
        params = {"textDocument": {"uri": uri, "version": version}, "contentChanges": changes}
        self._client.notify("didChange", "textDocument/didChange", params)

    def _ask(self, params: Any, legal: frozenset[int], *, as_text: bool) -> Asked:
        method = "textDocument/inlineCompletion"
        return self._client.request("inlineCompletion", method, params, legal=legal, fits=is_list, as_text=as_text)


def is_list(result: Any) -> bool:
    """Returns whether a result is a list, which may be empty but not null."""
    return isinstance(result, list)


def _end(text: str) -> dict[str, int]:
    """Returns the end of a text, in UTF-16."""
    lines = text.split("\n")
    return {"line": len(lines) - 1, "character": len(lines[-1].encode("utf-16-le")) // 2}
