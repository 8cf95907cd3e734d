"""The longest processor time of one message with texts and values of 10^6 and 10^7 characters, by entry point.

In process: the server's own protocol, session and handlers, over an engine that answers at once. A message is passed as
the bytes of its body; its time ends when its answer is written, or for a notification when the event loop is idle. The
decoding of the JSON is measured once more by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record

sys.path.insert(0, str(Path(__file__).parents[3]))  # the patterns are those of the tests

from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Context, Draft, Finish, Infill
from dgemma_engine.protocol.status_messages import EngineState, Progress, Status

from dgemma_lsp.server.app import build_server
from tests.lsp.bounded_work.worst_texts import WORST_TEXTS

GOAL_MS = 50
KEYS = 3
ANSWER = "f([\n    1,\n    2,\n])\ng(x)"
SETTLED_S = 0.3


class InstantSource:
    """Answers at once."""

    async def infill(self, context: Context, on_draft: Callable[[Draft], None] | None = None) -> Infill:
        return Infill(text=ANSWER, finish=Finish.STABLE, score=0.9, steps=1)

    async def definitions(self, query: DefinitionsQuery) -> Definitions:
        return Definitions(texts={})

    async def status(self) -> Status:
        raise AssertionError("nobody asks")

    async def close(self) -> None:
        pass


async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> Any:
    on_progress(Progress(state=EngineState.READY, percent=100))
    return InstantSource()


class Written:
    """What the server writes, and whether the answer to a request is among it."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.news = asyncio.Event()
        self.num_items = 0

    def write(self, data: bytes) -> None:
        message = json.loads(data.split(b"\r\n\r\n", 1)[1])
        if "method" not in message:
            self.ids.add(message["id"])
            self.news.set()
            result = message.get("result")
            self.num_items += len(result) if isinstance(result, list) else bool(result)

    def close(self) -> None:
        pass


class MessageSender:
    """Hands messages to a server and measures them."""

    def __init__(self, home: str) -> None:
        self.server = build_server(lambda _settings: connect, environ={"HOME": home})
        self.written = Written()
        self.server.protocol.set_writer(self.written)  # pyright: ignore[reportArgumentType]
        self.last_id = 0

    async def request(self, method: str, params: object) -> dict[str, float]:
        """Returns the milliseconds of a request."""
        self.last_id += 1
        wanted = self.last_id
        body = _body(method, params, id=wanted)
        decoding_ms = _decoding_ms(body)
        started_s = time.process_time()
        self.server.messages.receive(body)
        while wanted not in self.written.ids:
            self.written.news.clear()
            await self.written.news.wait()
        return {"ms": (time.process_time() - started_s) * 1e3, "decoding_ms": decoding_ms}

    async def notify(self, method: str, params: object) -> dict[str, float]:
        """Returns the milliseconds of a notification."""
        body = _body(method, params)
        decoding_ms = _decoding_ms(body)
        started_s = time.process_time()
        self.server.messages.receive(body)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return {"ms": (time.process_time() - started_s) * 1e3, "decoding_ms": decoding_ms}

    async def begin(self) -> None:
        """Opens the session with the menu offered too."""
        options = {"completionFallback": True, "speculation": False}
        await self.request("initialize", {"processId": None, "capabilities": {}, "initializationOptions": options})
        await self.notify("initialized", {})


def _body(method: str, params: object, **more: int) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}, ensure_ascii=False).encode()


def _decoding_ms(body: bytes) -> float:
    started_s = time.process_time()
    json.loads(body)
    return (time.process_time() - started_s) * 1e3


async def of_text(
    editor: MessageSender, language: str, text: str, cursor: tuple[int, int], number: int
) -> dict[str, Any]:
    """Returns the milliseconds of each kind of message about one text."""
    uri, (line, column) = f"file:///w/{number}.txt", cursor
    document, found = {"uri": uri}, {}
    opened = {"uri": uri, "languageId": language, "version": 0, "text": text}
    found["didOpen"] = await editor.notify("textDocument/didOpen", {"textDocument": opened})
    context = {"triggerKind": 1}
    place = {"line": line, "character": column}
    asked = {"textDocument": document, "position": place, "context": context}
    found["first question"] = await editor.request("textDocument/inlineCompletion", asked)
    await asyncio.sleep(SETTLED_S)
    for key in range(1, KEYS + 1):
        span = {"start": place, "end": place}
        versioned = {"uri": uri, "version": key}
        change = {"textDocument": versioned, "contentChanges": [{"range": span, "text": "x"}]}
        _keep_worst(found, "didChange", await editor.notify("textDocument/didChange", change))
        column += 1
        place = {"line": line, "character": column}
        asked = {"textDocument": document, "position": place, "context": context}
        _keep_worst(found, "question", await editor.request("textDocument/inlineCompletion", asked))
        _keep_worst(found, "menu", await editor.request("textDocument/completion", asked))
        await asyncio.sleep(SETTLED_S / KEYS)
    start = {"line": line, "character": max(0, column - 50_000)}
    selection = {"start": start, "end": place}
    actions = {"textDocument": document, "range": selection, "context": {"diagnostics": []}}
    found["code action"] = await editor.request("textDocument/codeAction", actions)
    fill = {"textDocument": document, "range": selection, "kind": "selection"}
    found["fill"] = await editor.request("dgemma/fill", fill)
    whole = {"textDocument": {"uri": uri, "version": KEYS + 1}, "contentChanges": [{"text": text}]}
    found["didChange, whole text"] = await editor.notify("textDocument/didChange", whole)
    found["didClose"] = await editor.notify("textDocument/didClose", {"textDocument": document})
    return found


def _keep_worst(found: dict[str, Any], name: str, cost: dict[str, float]) -> None:
    if name not in found or cost["ms"] > found[name]["ms"]:
        found[name] = cost


def shapes(piece: str, length: int) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Yields a name, a text and a cursor: one long line, and lines of 100 characters."""
    line = (piece * (length // len(piece) + 1))[:length]
    units = len(line[: length // 2].encode("utf-16-le", "surrogatepass")) // 2
    yield "one line", f"a\n{line}\nb\n", (1, units)
    lines = [line[at : at + 100] for at in range(0, length, 101)]
    yield "lines", "\n".join(lines), (len(lines) // 2, 50)


async def of_values(editor: MessageSender, length: int) -> dict[str, Any]:
    """Returns the milliseconds of settings and URIs."""
    found: dict[str, Any] = {}
    change = "workspace/didChangeConfiguration"
    values: dict[str, object] = {
        "a text": {"privateFiles": "a" * length},
        "a list": {"privateFiles": ["*a"] * (length // 4)},
        "names": {f"n{index}": 0 for index in range(length // 10)},
        "1,000 long patterns": {"privateFiles": ["x" * 512] * 1_000},
    }
    for name, value in values.items():
        found[f"settings: {name}"] = await editor.notify(change, {"settings": value})
    await editor.notify(change, {"settings": {"completionFallback": True}})
    for name, piece in {"folders": "a/", "escapes": "%41", "hashes": "#?"}.items():
        uri = "file:///" + piece * (length // len(piece))
        opened = {"uri": uri, "languageId": "python", "version": 0, "text": "x"}
        found[f"URI: {name}, didOpen"] = await editor.notify("textDocument/didOpen", {"textDocument": opened})
        place = {"line": 0, "character": 1}
        asked = {"textDocument": {"uri": uri}, "position": place, "context": {"triggerKind": 1}}
        found[f"URI: {name}, question"] = await editor.request("textDocument/inlineCompletion", asked)
    return found


async def measure(length: int) -> dict[str, Any]:
    """Returns by entry point the worst message: milliseconds, what decoding takes of them, and what it was about."""
    worst: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dgemma-") as home:
        editor = MessageSender(home)
        await editor.begin()
        # As the server does when it starts.
        gc.freeze()
        for number, (language, name, piece) in enumerate(WORST_TEXTS):
            for shape, text, cursor in shapes(piece, length):
                found = await of_text(editor, language, text, cursor, number)
                for message, cost in found.items():
                    _note(worst, message, cost, f"{language}: {name}, {shape}")
        for name, cost in (await of_values(editor, length)).items():
            _note(worst, name, cost, "")
        assert editor.written.num_items > len(WORST_TEXTS), "questions were answered with items"
    return {name: worst[name] for name in sorted(worst, key=lambda name: -worst[name]["without_decoding_ms"])}


def _note(worst: dict[str, Any], message: str, cost: dict[str, float], about: str) -> None:
    rest_ms = max(cost["ms"] - cost["decoding_ms"], 0.0)
    if message not in worst or rest_ms > worst[message]["without_decoding_ms"]:
        worst[message] = {
            "ms": round(cost["ms"], 1),
            "of_which_decoding_ms": round(cost["decoding_ms"], 1),
            "without_decoding_ms": round(rest_ms, 1),
            "about": about,
        }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--lengths", type=int, nargs="+", default=[10**6, 10**7])
    args = parser.parse_args()
    messages = {str(length): asyncio.run(measure(length)) for length in args.lengths}
    missed = {
        length: [name for name, cost in found.items() if cost["without_decoding_ms"] > GOAL_MS]
        for length, found in messages.items()
    }
    result = {
        "time": "processor time of the process, in process, engine without a model",
        "goal_ms": GOAL_MS,
        "over_the_goal": missed,
        "messages": messages,
    }
    record.write("message_cost", result, args.out)


if __name__ == "__main__":
    main()
