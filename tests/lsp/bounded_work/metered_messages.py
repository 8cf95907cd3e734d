"""Calls the server's entry points with texts of a given length, in modules that count the characters they read.

A program of its own, because the modules are rewritten on import: `python -m tests.lsp.bounded_work.metered_messages
LENGTH` prints a JSON object with the counts of each text and entry point.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lsp.bounded_work.text_meter import metered

METER = metered("dgemma_lsp")

from dgemma_engine.privacy.gitignore_file import IgnoreFile  # noqa: E402
from dgemma_engine.privacy.gitignore_tree import IgnoreTree  # noqa: E402
from dgemma_engine.protocol.messages import Finish, Infill  # noqa: E402
from lsprotocol import types  # noqa: E402

from dgemma_lsp.documents.positions import PositionEncoding  # noqa: E402
from dgemma_lsp.documents.store import Document, Edit  # noqa: E402
from dgemma_lsp.fill.service import FillQuestion  # noqa: E402
from dgemma_lsp.fill.target import FillKind, fill_kinds  # noqa: E402
from dgemma_lsp.request import Channel, Trigger  # noqa: E402
from dgemma_lsp.server import conversions  # noqa: E402
from dgemma_lsp.session import Session  # noqa: E402
from dgemma_lsp.settings.reader import read_settings  # noqa: E402
from dgemma_lsp.settings.settings import Settings  # noqa: E402
from tests.lsp.bounded_work.worst_texts import WORST_TEXTS  # noqa: E402
from tests.lsp.fake_engine import FakeConnector  # noqa: E402
from tests.lsp.quiet_session import quiet_session  # noqa: E402

UTF16 = PositionEncoding.UTF16
ANSWER = "f([\n    1,\n    2,\n])\ng(x)"
assert Finish.STABLE and Infill


class Run:
    """One document in one session, and the counts of each message about it."""

    def __init__(self, session: Session, document: Document, cursor: int) -> None:
        self.session = session
        self.document = document
        self.cursor = cursor
        self.num_offered = 0
        self.counts: dict[str, dict[str, Any]] = {}

    def note(self, name: str) -> None:
        most, what = METER.most
        self.counts[name] = {"characters": METER.characters, "turns": METER.turns, "most": most, "what": what}
        METER.clear()

    async def messages(self) -> None:
        """Opens the document, asks, types two keys and asks after each, asks for the menu, fills, and closes it."""
        METER.clear()
        self.session.documents.open(self.document)
        self.note("didOpen")
        await self.ask(Trigger.INVOKED, Channel.GHOST_TEXT)
        self.note("first question")
        for number, key in enumerate("fo", start=1):
            position = self.position()
            self.session.change(self.document.uri, number, [Edit(span=(position, position), text=key)], UTF16)
            self.note("didChange")
            self.cursor += 1
            await self.ask(Trigger.AUTOMATIC if number > 1 else Trigger.INVOKED, Channel.GHOST_TEXT)
            self.note("question")
        await self.ask(Trigger.INVOKED, Channel.MENU)
        self.note("menu")
        await self.fill()
        self.session.close_document(self.document.uri)

    def position(self) -> tuple[int, int]:
        return self.now().lines.position(self.cursor, UTF16)

    def now(self) -> Document:
        document = self.session.documents.get(self.document.uri)
        assert document is not None
        return document

    async def ask(self, trigger: Trigger, channel: Channel) -> None:
        document = self.now()
        line, column = self.position()
        METER.clear()
        request = conversions.to_request(
            document,
            types.Position(line=line, character=column),
            cells=self.session.cells_around(document.uri),
            encoding=UTF16,
            roots=("file:///w",),
            trigger=trigger,
            channel=channel,
            deadline_ms=3_000.0,
        )
        completions = await self.session.answer(request)
        self.num_offered += len(completions)
        self.session.recorder.offer(document.uri, document.text, completions)
        for completion in completions:
            conversions.to_inline_item(completion, document.lines, UTF16, accepted=None)
            conversions.to_menu_item(completion, request.before, document.lines, UTF16, accepted=None)

    async def fill(self) -> None:
        document = self.now()
        line, column = self.position()
        start = document.lines.position(max(0, self.cursor - 50_000), UTF16)
        span = sorted([start, (line, column)])
        METER.clear()
        fill_kinds(document.text, self.cursor, self.cursor, language_id=document.language)
        self.note("code action")
        question = FillQuestion(
            uri=document.uri, version=document.version, span=(span[0], span[1]), kind=FillKind.SELECTION
        )
        given = await self.session.fills.answer(
            question, self.session.settings, encoding=UTF16, path="a", folder="", on_draft=lambda _draft: None
        )
        self.num_offered += len(given.candidates)
        self.note("fill")


async def of_texts(home: Path, length: int, only: str | None) -> dict[str, Any]:
    """Returns the counts for each worst text: as one long line, and as short lines of the same total length."""
    counts: dict[str, Any] = {}
    num_offered = 0
    connector = FakeConnector(answers={"": ANSWER})
    for language, name, piece in WORST_TEXTS:
        if only and only not in name:
            continue
        session = quiet_session(home, connector)
        line = (piece * (length // len(piece) + 1))[:length]
        for shape, text, cursor in (
            ("end", line, length),
            ("middle", f"a\n{line}\nb\n", 2 + length // 2),
            ("lines", "\n".join(line[at : at + 100] for at in range(0, length, 101)), length // 2),
        ):
            document = Document(uri=f"file:///w/{len(counts)}.txt", version=0, language=language, text=text)
            run = Run(session, document, cursor)
            await run.messages()
            num_offered += run.num_offered
            counts[f"{language}: {name}, {shape}"] = run.counts
        await session.close()
    return {"counts": counts, "num_offered": num_offered}


def of_values(length: int, home: Path) -> dict[str, Any]:
    """Returns the counts for settings, URIs and ignore files."""
    counts: dict[str, Any] = {}

    def note(name: str, work: Callable[[], object]) -> None:
        METER.clear()
        work()
        counts[name] = {"characters": METER.characters, "turns": METER.turns, "most": METER.most}

    for name, value in {
        "text": "a" * length,
        "texts": ["a*" * 2_000 + "\n"] * length,
        "names": {f"n{index}": index for index in range(length)},
        "pattern": ["x" * 511 + "\n"] * 1_000,
        "too long a pattern": ["x" * 4_000] * 1_000,
    }.items():
        for key in ("privateFiles", "pausedLanguages", "engine", "engine.model", "x"):
            raw = value if key == "x" else {key: value}
            note(f"settings: {key} is {name}", lambda raw=raw: read_settings(raw, Settings()))
    for name, piece in {"folders": "a/", "escapes": "%41", "words": "a", "dots": "../", "hashes": "#?"}.items():
        uri = "file:///" + piece * (length // len(piece))
        session = quiet_session(home, FakeConnector())
        document = Document(uri=uri, version=0, language="python", text="x")
        note(f"uri: {name}", lambda session=session, document=document: session.documents.open(document))
        note(f"path of a uri: {name}", lambda uri=uri: conversions.shown_path(uri, (uri, "file:///w")))
    folder = home / "tree"
    folder.mkdir()
    for name, piece in {"names": "ab\n", "stars": "*a*a*a*b\n", "deep": "**/a/**/b/**/c\n", "one": "*a"}.items():
        (folder / ".dgemmaignore").write_text(piece * min(length // len(piece), 250_000 // len(piece)))
        tree = IgnoreTree(home=home, clock=lambda: 0.0)
        path = str(folder / ("a" * 200) / ("ab" * 100))
        note(f"ignore file: {name}", lambda tree=tree, path=path: tree.match(path))
        rules = IgnoreFile.parse((piece * 3)[: 4 * len(piece)])
        note(f"long path: {name}", lambda rules=rules: rules.deciding("a/" * 60 + "ab" * 1_000))
    return counts


async def main() -> None:
    length, *only = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
        texts = await of_texts(Path(folder), int(length), only[0] if only else None)
        values = {} if only else of_values(int(length), Path(folder))
    sys.stdout.write(json.dumps({"texts": texts["counts"], "num_offered": texts["num_offered"], "values": values}))


if __name__ == "__main__":
    asyncio.run(main())
