"""An editor's window that plays a script of keys on real files and stores every request and its answer.

Plays VS Code, which asks at every key and cancels older requests, and Neovim, which asks 200 ms after the last key,
cancels nothing and shows any answer that comes.
"""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editor import Editor
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding

LIBRARY = Path(random.__file__).parent
_NEOVIM_WAIT_S = 0.2
# An answer and an edit that left within this time may have crossed on the wire.
CROSSING_S = 0.05
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(slots=True)
class AskedItem:
    """One request. `inserted` is what follows the cursor; None for no item. `expected` is what should be left over of
    the item shown before, if what was typed since begins it. `replaced_s` is when its document was edited or asked
    about again; `stale_s` how long after that an item came, where that is too long for the two to have crossed."""

    uri: str
    version: int
    sent_s: float
    expected: str | None
    answered_s: float | None = None
    inserted: str | None = None
    span: types.Range | None = None
    error: int | None = None
    replaced_s: float | None = None
    stale_s: float = 0.0


@dataclass(slots=True)
class _File:
    uri: str
    text: str
    cursor: int
    truth: str
    version: int = 1
    undo: list[tuple[str, int]] = field(default_factory=list)
    newest: AskedItem | None = None
    ghost: AskedItem | None = None
    typed: str = ""

    def replace(self) -> None:
        """Records that the text of the newest request has changed."""
        if self.newest is not None and self.newest.replaced_s is None:
            self.newest.replaced_s = time.monotonic()


class Window:
    """A window over a running server.

    Args:
        editor: the session.
        name: part of the documents' uris.
        client: `vscode` or `neovim`.
        pairs: whether it closes brackets.
        seed: of the jitter between keys.
    """

    def __init__(self, editor: Editor, name: str, *, client: str, pairs: bool = False, seed: int = 0) -> None:
        self._client = editor.client
        self._name = name
        self._kind = client
        self._pairs = pairs
        self._random = random.Random(seed)
        self._files: dict[str, _File] = {}
        self._file: _File | None = None
        self._pending: dict[str, Future[Any]] = {}
        self._taken_back: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.asked: list[AskedItem] = []
        self.keys = 0
        self.accepted = 0

    @property
    def file(self) -> _File:
        assert self._file is not None
        return self._file

    async def play(self, script: list[list[Any]]) -> None:
        """Plays a script and waits for what is still unanswered."""
        for name, *values in script:
            await getattr(self, name)(*values)
        await self.settle()

    async def settle(self) -> None:
        """Waits until everything is answered, at most ten seconds."""
        if self._timer is not None:
            await asyncio.sleep(_NEOVIM_WAIT_S)
        give_up_s = time.monotonic() + 10
        while self._pending and time.monotonic() < give_up_s:
            await asyncio.sleep(0.01)

    async def open(self, name: str, anchor: str, num_lines: int) -> None:
        text = (LIBRARY / name).read_text(encoding="utf-8")
        start = text.index(anchor)
        end = start
        for _ in range(num_lines):
            end = text.index("\n", end + 1)
        uri = f"file:///bench/{self._name}/{name}".replace(" ", "_")
        self._file = self._files[name] = _File(uri, text[:start] + text[end:], start, text[start:end])
        item = types.TextDocumentItem(uri=uri, language_id="python", version=1, text=self.file.text)
        self._client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))

    async def switch(self, name: str) -> None:
        self._file = self._files[name]
        self._ask()

    async def close(self) -> None:
        self._close(self.file)
        self._files = {name: file for name, file in self._files.items() if file is not self.file}

    def close_all(self) -> None:
        """Closes every document."""
        for file in self._files.values():
            self._close(file)
        self._files.clear()

    def _close(self, file: _File) -> None:
        identifier = types.TextDocumentIdentifier(uri=file.uri)
        self._client.text_document_did_close(types.DidCloseTextDocumentParams(identifier))

    async def type(self, rate: float, count: int | None = None) -> None:
        """Types the next `count` characters of what stood here."""
        text, self.file.truth = self.file.truth[:count], self.file.truth[len(self.file.truth[:count]) :]
        await self.write(rate, text)

    async def write(self, rate: float, text: str) -> None:
        index = 0
        while index < len(text):
            piece = text[index]
            if piece == "\n":  # Editors indent the next line by themselves.
                rest = text[index + 1 :]
                piece += rest[: len(rest) - len(rest.lstrip(" "))]
            index += len(piece)
            await self._gap(rate)
            self._key(piece)

    async def backspace(self, rate: float, count: int) -> None:
        for _ in range(count):
            await self._gap(rate)
            self._edit(self.file.cursor - 1, self.file.cursor, "")
            self._ask()

    async def jump(self, anchor: str) -> None:
        self.file.cursor = self.file.text.index(anchor) + len(anchor)
        self.file.ghost = None
        self._ask()

    async def move(self, rate: float, count: int) -> None:
        """Holds an arrow key down."""
        for _ in range(abs(count)):
            await self._gap(rate, jitter=0.0)
            self.file.cursor += 1 if count > 0 else -1
            self.file.ghost = None
            self._ask()

    async def accept(self) -> None:
        """Accepts the item that is shown, if one is."""
        ghost, file = self.file.ghost, self.file
        if ghost is None or ghost.inserted is None or ghost.span is None:
            return
        lines = LineIndex(file.text)
        start = file.cursor
        end = lines.offset(ghost.span.end.line, ghost.span.end.character, PositionEncoding.UTF16)
        left = ghost.inserted.removeprefix(file.typed)
        self._edit(start, max(start, end + len(file.typed)), left)
        if file.truth.startswith(left):
            file.truth = file.truth[len(left) :]
        file.ghost = None
        self.accepted += 1
        self._ask()

    async def undo(self, rate: float, count: int) -> None:
        for _ in range(min(count, len(self.file.undo))):
            await self._gap(rate)
            text, cursor = self.file.undo.pop()
            self._edit(0, len(self.file.text), text, is_undo=True)
            self.file.cursor = cursor
            self._ask()

    async def paste(self, text: str) -> None:
        self._edit(self.file.cursor, self.file.cursor, text)
        self._ask()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def invoke(self) -> None:
        self._send(types.InlineCompletionTriggerKind.Invoked)

    async def _gap(self, rate: float, jitter: float = 0.3) -> None:
        await asyncio.sleep(self._random.lognormvariate(0.0, jitter) / rate)

    def _key(self, piece: str) -> None:
        file = self.file
        self.keys += 1
        if self._pairs and piece in _PAIRS.values() and file.text[file.cursor : file.cursor + 1] == piece:
            file.cursor += 1
            file.ghost = None
        else:
            ghost, typed = file.ghost, file.typed + piece
            closer = _PAIRS.get(piece, "") if self._pairs else ""
            self._edit(file.cursor, file.cursor, piece + closer)
            file.cursor -= len(closer)
            left = ghost.inserted if ghost is not None else None
            if left is not None and left.startswith(typed) and left[len(typed) :].strip() and not closer:
                file.ghost, file.typed = ghost, typed
        self._ask()

    def _edit(self, start: int, end: int, text: str, *, is_undo: bool = False) -> None:
        file = self.file
        if not is_undo:
            file.undo.append((file.text, file.cursor))
        lines = LineIndex(file.text)
        span = types.Range(*(types.Position(*lines.position(at, PositionEncoding.UTF16)) for at in (start, end)))
        file.text, file.cursor = file.text[:start] + text + file.text[end:], start + len(text)
        file.version, file.ghost, file.typed = file.version + 1, None, ""
        file.replace()
        change = types.TextDocumentContentChangePartial(range=span, text=text)
        identifier = types.VersionedTextDocumentIdentifier(uri=file.uri, version=file.version)
        params = types.DidChangeTextDocumentParams(text_document=identifier, content_changes=[change])
        self._client.text_document_did_change(params)

    def _ask(self) -> None:
        """Asks as this client does after a key or a move."""
        if self._kind == "vscode":
            for msg_id in self._pending.keys() - self._taken_back:
                self._client.cancel_request(types.CancelParams(id=msg_id))
            self._taken_back.update(self._pending)
            self._send(types.InlineCompletionTriggerKind.Automatic)
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_NEOVIM_WAIT_S, self._send, types.InlineCompletionTriggerKind.Automatic)

    def _send(self, kind: types.InlineCompletionTriggerKind) -> None:
        self._timer = None
        file = self.file
        expected = file.ghost.inserted.removeprefix(file.typed) if file.ghost and file.ghost.inserted else None
        asked = AskedItem(file.uri, file.version, time.monotonic(), expected)
        self.asked.append(asked)
        file.replace()
        position = types.Position(*LineIndex(file.text).position(file.cursor, PositionEncoding.UTF16))
        msg_id = f"{self._name}-{len(self.asked)}"
        file.newest = asked
        params = types.InlineCompletionParams(
            text_document=types.TextDocumentIdentifier(uri=file.uri),
            position=position,
            context=types.InlineCompletionContext(trigger_kind=kind),
        )
        future = self._client.protocol.send_request("textDocument/inlineCompletion", params, msg_id=msg_id)
        self._pending[msg_id] = future
        before = file.text[: file.cursor].rpartition("\n")[2]
        future.add_done_callback(lambda done: self._answered(msg_id, asked, file, before, done))

    def _answered(self, msg_id: str, asked: AskedItem, file: _File, before: str, done: Future[Any]) -> None:
        asked.answered_s = now_s = time.monotonic()
        self._pending.pop(msg_id, None)
        if isinstance(error := done.exception(), JsonRpcException):
            asked.error = error.code
            return
        items = done.result()
        if items:
            asked.inserted, asked.span = items[0].insert_text.removeprefix(before), items[0].range
            if asked.replaced_s is not None and now_s - asked.replaced_s > CROSSING_S:
                asked.stale_s = now_s - asked.replaced_s
        if asked.version == file.version and file.newest is asked:
            file.ghost, file.typed = (asked, "") if items else (None, "")
