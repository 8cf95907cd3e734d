"""Context collected for a cursor position, and when it is collected again; the engine's parser is the real one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.protocol.definition_messages import Definitions, DefinitionsQuery
from dgemma_engine.protocol.messages import Snippet
from dgemma_engine.syntax.definitions import DefinitionFinder

from dgemma_lsp.context.collector import CollectedContext, CollectorLimits, ContextCollector, root_of
from dgemma_lsp.context.workspace_files import WorkspaceFiles
from dgemma_lsp.documents.store import Document
from dgemma_lsp.request import Request, Trigger
from dgemma_lsp.session import Session
from tests.lsp.cursor import split_cursor
from tests.lsp.fake_engine import FakeConnector
from tests.lsp.quiet_session import quiet_session

PATIENT = CollectorLimits(budget_ms=60_000, patience_ms=60_000)
CURSOR = "def total(basket, prices):\n    return |\n"
SIMILAR = "def count(basket, prices):\n    return len(basket) + len(prices) + zero + unit\n"
LESS = "def total_of_all_things(one_thing, another):\n    return None, basket, False, True\n"


class Editor:
    """Open documents in a folder, and a context collector over them."""

    def __init__(
        self,
        root: Path,
        limits: CollectorLimits = PATIENT,
        *,
        private: Callable[[Path], bool] = lambda _: False,
        has_engine: bool = True,
    ) -> None:
        self.root = root
        self.documents: dict[str, Document] = {}
        self.queries: list[DefinitionsQuery] = []
        self.has_engine = has_engine
        self.now_s = 0.0
        self.files = WorkspaceFiles(lambda path, _head: "private" if private(path) else None)
        self._finder = DefinitionFinder(clock=lambda: 0.0)
        self.gatherer = ContextCollector(
            lambda: tuple(self.documents.values()),
            self.find,
            clock=lambda: self.now_s,
            limits=limits,
            files=self.files,
        )

    async def find(self, query: DefinitionsQuery) -> Definitions | None:
        if not self.has_engine:
            return None
        self.queries.append(query)
        return Definitions(texts=self._finder.find(query.text, query.names, language=query.language, path=query.path))

    def open(self, **texts: str) -> None:
        for name, text in texts.items():
            uri = (self.root / f"{name}.py").as_uri()
            version = self.documents[uri].version + 1 if uri in self.documents else 1
            self.documents[uri] = Document(uri=uri, version=version, language="python", text=text)

    def close(self, name: str) -> None:
        del self.documents[(self.root / f"{name}.py").as_uri()]

    def request(self, marked: str, name: str = "here") -> Request:
        text, offset = split_cursor(marked)
        self.open(**{name: text})
        document = self.documents[(self.root / f"{name}.py").as_uri()]
        return Request(
            uri=document.uri, version=document.version, text=text, offset=offset, path=f"{name}.py", language="python"
        )

    async def gather(self, marked: str = CURSOR, name: str = "here") -> CollectedContext:
        return await self.gatherer.collect(self.request(marked, name))


async def test_similar_windows_of_open_documents_best_last(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.open(near=SIMILAR, far=LESS, strange="import os\n")
    assert (await editor.gather()).snippets == (
        Snippet(path="far.py", text=LESS),
        Snippet(path="near.py", text=SIMILAR),
    )


async def test_copy_of_the_surroundings_is_left_out(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.open(copy=CURSOR.replace("|", "0"))
    assert await editor.gather() == CollectedContext()


async def test_at_most_four_windows_that_fit(tmp_path: Path) -> None:
    editor = Editor(tmp_path, replace(PATIENT, chunk_chars=3 * len(SIMILAR)))
    editor.open(**{f"near{n}": SIMILAR for n in range(6)})
    assert [snippet.path for snippet in (await editor.gather()).snippets] == ["near3.py", "near4.py", "near5.py"]
    editor = Editor(tmp_path)
    editor.open(**{f"near{n}": SIMILAR for n in range(6)})
    assert len((await editor.gather()).snippets) == 4


async def test_windows_of_many_long_documents_are_not_all_kept(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    long = "".join(f"basket_{n} = prices\n" for n in range(8_000))
    editor.open(**{f"near{n}": long for n in range(6)})
    assert len((await editor.gather()).snippets) == 4
    assert 0 < sum(len(facts.chunks or ()) for facts in editor.files.kept.values()) <= 2_000


async def test_definitions_follow_the_text_of_an_imported_file(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    marked = f"from shop import price\n{CURSOR}"
    for number in range(3):
        editor.open(shop=f"def price(thing): return {number}\n")
        assert f"return {number}" in (await editor.gather(marked)).snippets[0].text
    assert len(editor.queries) == 3
    (kept,) = [facts.definitions for facts in editor.files.kept.values() if facts.definitions]
    assert len(kept) == 1


async def test_closed_document_is_read_from_disk(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.open(near="unsaved\n")
    await editor.gather()
    editor.close("near")
    (tmp_path / "near.py").write_text(SIMILAR)
    editor.open(far=LESS)
    assert [snippet.text for snippet in (await editor.gather()).snippets] == [LESS, SIMILAR]


@pytest.mark.parametrize("is_open", [True, False])
async def test_private_file_gives_nothing(tmp_path: Path, is_open: bool) -> None:
    editor = Editor(tmp_path, private=lambda path: path.stem in ("near", "shop"))
    for name, text in (("near", SIMILAR), ("shop", "def price(): ...\n")):
        (tmp_path / f"{name}.py").write_text(text)
        if is_open:
            editor.open(**{name: text})
    marked = f"from shop import price\n{CURSOR}"
    await editor.gather(marked)
    editor.open(near=SIMILAR + "one = 1\n")
    assert await editor.gather(marked) == CollectedContext()
    assert not editor.queries


async def test_definitions_stand_first_in_the_order_of_the_imports(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("from .deep import buy\n")
    (tmp_path / "pkg/deep.py").write_text(
        "def buy(thing):\n    '''Buys.'''\n" + "    work()\n" * 9 + "def sell(): ...\n"
    )
    (tmp_path / "shop.py").write_text("def price(thing): ...\n\nTAX = 3\n")
    editor = Editor(tmp_path)
    editor.open(near=SIMILAR, shop="def price(thing, unsaved): ...\n")
    gathered = await editor.gather(f"from pkg import buy\nfrom shop import price\n{CURSOR}")
    assert gathered.snippets[:2] == (
        Snippet(path="pkg/deep.py", text="def buy(thing):\n    '''Buys.'''"),
        Snippet(path="shop.py", text="def price(thing, unsaved): ..."),
    )
    assert gathered.snippets[-1] == Snippet(path="near.py", text=SIMILAR)


async def test_definitions_of_names_near_the_cursor_come_first_where_not_all_fit(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def first(): ...\n\ndef price(): ...\n")
    editor = Editor(tmp_path, replace(PATIENT, definition_chars=20))
    marked = "from shop import first, price\n" + "\n" * 50 + "x = price(|)\n"
    assert [snippet.text for snippet in (await editor.gather(marked)).snippets] == ["def price(): ..."]


async def test_nothing_outside_the_workspace_is_read(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(): ...\n")
    (tmp_path / "inside").mkdir()
    editor = Editor(tmp_path / "inside")
    assert await editor.gather("from shop import price\nfrom ..shop import price\nx = |\n") == CollectedContext()
    assert not editor.queries


async def test_typing_at_one_place_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(): ...\n")
    editor = Editor(tmp_path)
    editor.open(near=SIMILAR)
    marked = f"from shop import price\n{CURSOR}"
    first = await editor.gather(marked)
    assert len(first.snippets) == 2
    for typed in ("l", "le", "len(basket) + len(prices) + zero + unit", "1\n" * 29 + "2"):
        assert await editor.gather(marked.replace("|", f"{typed}|")) is first
    assert len(editor.queries) == 1


@pytest.mark.parametrize(
    ("marked", "others"),
    [
        (CURSOR.replace("|", "1\n" * 31 + "|"), {}),
        (f"import os\n{CURSOR}", {}),
        (CURSOR, {"near": SIMILAR + "one = 1\n"}),
        (CURSOR, {"new": LESS}),
    ],
    ids=["another place", "another import", "another text", "another document"],
)
async def test_choice_is_renewed_for_a_reason(tmp_path: Path, marked: str, others: dict[str, str]) -> None:
    editor = Editor(tmp_path)
    editor.open(near=SIMILAR)
    first = await editor.gather()
    editor.open(**others)
    assert await editor.gather(marked) is not first


async def test_import_that_is_being_typed_is_waited_for(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    first = await editor.gather(f"|\n{CURSOR.replace('|', '')}")
    assert await editor.gather(f"import os|\n{CURSOR.replace('|', '')}") is first
    assert await editor.gather(f"import os\n{CURSOR}") is not first


async def test_definitions_are_asked_for_again_once_there_is_an_engine(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(): ...\n")
    editor = Editor(tmp_path, has_engine=False)
    marked = f"from shop import price\n{CURSOR}"
    assert await editor.gather(marked) == CollectedContext()
    editor.has_engine = True
    assert await editor.gather(marked) == CollectedContext()
    editor.now_s = 3.0
    assert len((await editor.gather(marked)).snippets) == 1


async def test_missing_definitions_are_added_without_a_new_choice_of_windows(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(): ...\n")
    editor = Editor(tmp_path, replace(PATIENT, num_chunks=1), has_engine=False)
    editor.open(near=SIMILAR, far="alpha beta gamma delta")
    marked = f"from shop import price\n{CURSOR}"
    assert [snippet.path for snippet in (await editor.gather(marked)).snippets] == ["near.py"]
    editor.has_engine, editor.now_s = True, 3.0
    typed = marked.replace("|", "alpha, beta, gamma, delta|")
    assert [snippet.path for snippet in (await editor.gather(typed)).snippets] == ["shop.py", "near.py"]


async def test_request_does_not_wait_for_a_slow_renewal(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(): ...\n")
    editor = Editor(tmp_path, replace(PATIENT, patience_ms=0))
    asked, answer = asyncio.Event(), asyncio.Event()
    find = editor.find

    async def slow(query: DefinitionsQuery) -> Definitions | None:
        asked.set()
        await answer.wait()
        return await find(query)

    editor.gatherer = ContextCollector(
        lambda: tuple(editor.documents.values()), slow, clock=lambda: 0.0, limits=replace(PATIENT, patience_ms=0)
    )
    marked = f"from shop import price\n{CURSOR}"
    assert await editor.gather(marked) == CollectedContext()
    await asked.wait()
    assert await editor.gather(marked) == CollectedContext()
    answer.set()
    while not (await editor.gather(marked)).snippets:
        await asyncio.sleep(0.001)
    assert len(editor.queries) == 1


async def test_renewal_out_of_time_keeps_what_it_has_and_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(): ...\n")
    editor = Editor(tmp_path)

    async def never(query: DefinitionsQuery) -> Definitions | None:
        editor.queries.append(query)
        await asyncio.Event().wait()

    editor.gatherer = ContextCollector(
        lambda: tuple(editor.documents.values()),
        never,
        clock=lambda: editor.now_s,
        limits=CollectorLimits(budget_ms=300, patience_ms=60_000),
    )
    editor.open(near=SIMILAR)
    marked = f"from shop import price\n{CURSOR}"
    assert [snippet.path for snippet in (await editor.gather(marked)).snippets] == ["near.py"]
    editor.now_s = 3.0
    await editor.gather(marked)
    assert len(editor.queries) == 2


async def test_fault_is_logged_without_text_and_not_repeated_at_the_next_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shop.py").write_text("def price(): ...\n")
    editor = Editor(tmp_path)

    async def broken(query: DefinitionsQuery) -> Definitions | None:
        editor.queries.append(query)
        raise RuntimeError(query.text)

    editor.gatherer = ContextCollector(
        lambda: tuple(editor.documents.values()), broken, clock=lambda: 0.0, limits=PATIENT
    )
    with caplog.at_level(logging.DEBUG):
        assert await editor.gather(f"from shop import price\n{CURSOR}") == CollectedContext()
        assert await editor.gather(f"from shop import price\n{CURSOR.replace('|', 'l|')}") == CollectedContext()
    assert len(editor.queries) == 1
    assert "RuntimeError" in caplog.text
    assert "price" not in caplog.text


async def test_recent_edits_of_another_document(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.open(other="one = 1\n")
    assert (await editor.gather()).edits == ()
    editor.open(other="one = 2\n")
    assert (await editor.gather()).edits == (Snippet(path="other.py", text="-one = 1\n+one = 2"),)


async def test_untitled_document_is_completed_and_is_no_context(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.documents["untitled:1"] = Document(uri="untitled:1", version=1, language="python", text=SIMILAR)
    assert await editor.gather() == CollectedContext()
    editor.open(near=SIMILAR)
    request = Request(uri="untitled:1", version=1, text="basket = prices", offset=3, path="1", language="python")
    assert [snippet.path for snippet in (await editor.gatherer.collect(request)).snippets] == ["near.py", "here.py"]


async def test_large_workspace_is_bounded(tmp_path: Path) -> None:
    editor = Editor(tmp_path, replace(PATIENT, num_files=3))
    editor.open(**{f"near{n}": SIMILAR for n in range(30)})
    assert len((await editor.gather()).snippets) == 3


@pytest.mark.parametrize(
    ("path", "shown", "root"),
    [("/w/a/b.py", "a/b.py", "/w"), ("/w/a/b.py", "b.py", "/w/a"), ("/b.py", "a/b.py", "/"), ("/w/b.py", "", "/w")],
)
def test_root_is_what_the_shown_path_is_relative_to(path: str, shown: str, root: str) -> None:
    assert root_of(Path(path), shown) == Path(root)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget_ms": -1}, r"self\.budget_ms=-1"),
        ({"num_chunks": -1}, "must not be negative"),
        ({"most_similar": 2}, r"self\.most_similar=2 must be between 0 and 1"),
    ],
)
def test_limits_refuse_numbers_out_of_their_range(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollectorLimits(**values)


def session_with(editor: Editor, connector: FakeConnector) -> Session:
    session = quiet_session(editor.root, connector)
    for document in editor.documents.values():
        session.documents.open(document)
    return session


async def until_seen(session: Session, request: Request, connector: FakeConnector, *paths: str) -> None:
    """Asks until the engine sees snippets of exactly these files."""
    give_up_s = time.monotonic() + 30
    while not connector.engines or paths != tuple(one.path for one in connector.engines[0].contexts[-1].snippets):
        assert time.monotonic() < give_up_s
        await session.answer(request)


async def test_engine_sees_what_was_gathered(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(thing): ...\n")
    editor, connector = Editor(tmp_path), FakeConnector()
    editor.open(near=SIMILAR)
    request = editor.request(f"from shop import price\n{CURSOR}")
    session = session_with(editor, connector)
    await until_seen(session, request, connector, "shop.py", "near.py")
    await session.close()


async def test_engine_sees_nothing_private_and_no_longer_what_became_private(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(thing): ...\n")
    (tmp_path / ".dgemmaignore").write_text("near.py\n")
    editor, connector = Editor(tmp_path), FakeConnector()
    editor.open(near=SIMILAR)
    request = editor.request(f"from shop import price\n{CURSOR}")
    session = session_with(editor, connector)
    await until_seen(session, request, connector, "shop.py")
    session.configure({"privateFiles": ["shop.py"]})
    await session.answer(request)
    assert connector.engines[0].contexts[-1].snippets == ()
    (tmp_path / ".dgemmaignore").unlink()
    session.ignore_files_changed()
    await until_seen(session, request, connector, "near.py")
    await session.close()


async def test_answer_from_before_an_ignore_file_changed_is_not_reused(tmp_path: Path) -> None:
    editor, connector = Editor(tmp_path), FakeConnector(answers={"value = ": "other.value"})
    request = replace(editor.request("value = |\n"), trigger=Trigger.AUTOMATIC)
    session = session_with(editor, connector)
    while not await session.answer(request):
        await asyncio.sleep(0.01)
    contexts = connector.engines[0].contexts
    num_asked = sum(not context.speculative for context in contexts)
    assert await session.answer(request)
    assert sum(not context.speculative for context in contexts) == num_asked
    session.ignore_files_changed()
    assert await session.answer(request)
    assert sum(not context.speculative for context in contexts) == num_asked + 1
    await session.close()
