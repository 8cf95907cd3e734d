"""The path of one warm request through the code: files, distinct functions, changes of file, deepest stacks.

One process holds the server's session, the real socket, the daemon, its worker and the embedded model; the editor's
transport is left out. A file is opened, asked about, one character is typed, and the second question is recorded. For
the session the second key follows the first after 200 ms, however long the machine takes: what the session caches for
one second is then computed once.
`deepest_stack` adds the server's and the engine's: the frames of our packages from the handler to the forward pass.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.infill.engine import Engine
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.serving import daemon
from lsprotocol import types

from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import Document
from dgemma_lsp.engine_client.connector import chosen_model, engine_connector
from dgemma_lsp.metrics.recorder import StatsRecorder
from dgemma_lsp.metrics.store import StatsFile
from dgemma_lsp.request import Channel, Trigger
from dgemma_lsp.server.conversions import to_inline_item, to_request
from dgemma_lsp.session import Session

SOURCE = Path(argparse.__file__)
ROOT = Path(__file__).parents[3]
PACKAGES = {"dgemma_lsp": "server", "dgemma_engine": "engine", "dgemma_kernels": "kernels"}
COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
URI = "file:///project/typed.py"


@dataclass(slots=True)
class CallLog:
    """The calls while `on`.

    Attributes:
        on: whether calls are recorded.
        functions: file and qualified name of each function of ours that was called.
        deepest: file and qualified name of each frame of ours on the deepest stack, by part, outermost first.
        num_changes: calls from a function in one file of ours into another file of ours.
    """

    on: bool = False
    functions: set[tuple[str, str]] = field(default_factory=set)
    deepest: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    num_changes: int = 0

    def called(self, frame: FrameType, event: str, _arg: Any) -> None:
        """Records a call; a profile function of `sys.setprofile`."""
        if not self.on or event != "call" or (part := part_of(frame)) is None:
            return
        self.functions.add((frame.f_code.co_filename, frame.f_code.co_qualname))
        depth, above = 1, frame.f_back
        caller: FrameType | None = None
        while above is not None:
            if part_of(above) is not None:
                caller = caller or above
                depth += 1
            above = above.f_back
        self.num_changes += caller is not None and caller.f_code.co_filename != frame.f_code.co_filename
        part = "engine" if part == "kernels" else part
        if depth > len(self.deepest.get(part, ())):
            self.deepest[part] = _stack(frame)


def _stack(frame: FrameType) -> list[tuple[str, str]]:
    """Returns the file and name of our frames up to this one, outermost first."""
    stack: list[tuple[str, str]] = []
    above: FrameType | None = frame
    while above is not None:
        if part_of(above) is not None:
            stack.append((above.f_code.co_filename, above.f_code.co_qualname))
        above = above.f_back
    return stack[::-1]


@dataclass(slots=True)
class Typist:
    """The session's clock, which stands at the last key."""

    now_s: float = 0.0

    def clock(self) -> float:
        """Returns when the last key was typed."""
        return self.now_s


class Silent:
    """An editor that shows nothing."""

    def publish(self, status: object) -> None:
        """Drops a status."""

    def error(self, message: str) -> None:
        """Drops an error."""

    def warning(self, message: str) -> None:
        """Drops a warning."""


def part_of(frame: FrameType) -> str | None:
    """Returns which of our packages a frame belongs to; None for others, and for the frame of a comprehension."""
    if frame.f_code.co_name in COMPREHENSIONS:
        return None
    parts = Path(frame.f_code.co_filename).parts
    return next((PACKAGES[name] for name in parts[:-1] if name in PACKAGES), None)


async def follow(seen: CallLog, runtime: str, source: str) -> None:
    """Asks twice; the second question is recorded."""
    location = EngineLocation.locate(os.environ)
    stop = asyncio.Event()

    def load(report: Any) -> Engine:
        return Engine.load(model_folder(location.model), device="cpu", report=report)

    serving = asyncio.create_task(daemon.serve(location, load=load, idle_s=None, stop=stop))
    await _ready(location)
    home = Path(runtime)
    recorder = StatsRecorder(StatsFile(home), clock=time.monotonic, today=lambda: "2026-01-01")
    typist = Typist()
    session = Session(
        engine_connector, chosen_model, clock=typist.clock, notifier=Silent(), recorder=recorder, home=home
    )
    session.initialize({"engine": {"model": location.model, "autostart": False}, "deadlineMs": 30_000})
    cursor = source.index("self.", len(source) // 2)
    line = source.count("\n", 0, cursor)
    column = cursor - source.rfind("\n", 0, cursor) - 1
    await asyncio.sleep(0.2)
    for version in range(2):
        typed = source[:cursor] + "sel"[: version + 1] + source[cursor + 5 :]
        typist.now_s += 0.2
        if version:
            seen.on = True
        await _ask(session, typed, version, types.Position(line=line, character=column + version + 1))
    seen.on = False
    await session.close()
    stop.set()
    await serving


async def _ask(session: Session, text: str, version: int, position: types.Position) -> None:
    document = Document(uri=URI, language="python", version=version, text=text)
    session.documents.open(document)
    request = to_request(
        document,
        position,
        cells=("", ""),
        encoding=PositionEncoding.UTF16,
        roots=(),
        trigger=Trigger.INVOKED,
        channel=Channel.GHOST_TEXT,
        deadline_ms=session.settings.deadline_ms,
    )
    completions = await session.answer(request)
    items = [to_inline_item(one, document.lines, PositionEncoding.UTF16, accepted=None) for one in completions]
    print(f"{len(items)} items", file=sys.stderr)


async def _ready(location: EngineLocation) -> None:
    while True:
        try:
            async with await EngineClient.attach(location) as client:
                await client.wait_ready(600)
        except EngineUnavailable:
            await asyncio.sleep(0.05)
        else:
            return


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("--list", action="store_true", help="print the functions, and the deepest stacks, instead")
    args = parser.parse_args()
    seen = CallLog()
    threading.setprofile(seen.called)
    sys.setprofile(seen.called)
    with tempfile.TemporaryDirectory(prefix="dgemma-") as runtime, contextlib.chdir(ROOT):
        os.environ["DGEMMA_RUNTIME_DIR"] = runtime
        started = time.perf_counter()
        asyncio.run(follow(seen, runtime, SOURCE.read_text(encoding="utf-8")))
        elapsed_s = time.perf_counter() - started
    sys.setprofile(None)
    if args.list:
        for title, functions in [("functions", sorted(seen.functions)), *seen.deepest.items()]:
            print(f"{title}: {len(functions)}")
            print(*(f"  {Path(file).relative_to(ROOT)} {name}" for file, name in functions), sep="\n")
        return
    files = {name for name, _ in seen.functions}
    record.write(
        "request_path",
        {
            "files": len(files),
            "functions": len(seen.functions),
            "deepest_stack": sum(map(len, seen.deepest.values())),
            "deepest_by_part": {part: len(stack) for part, stack in seen.deepest.items()},
            "changes_of_file": seen.num_changes,
            "elapsed_s": round(elapsed_s, 1),
            "target_files": 60,
            "target_functions": 300,
            "target_deepest_stack": 18,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
