"""The language server in a process that lacks what Windows lacks: remote answers, drives, counts, messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import HttpSettings
from lsprotocol import types

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, running_server, until
from tests.lsp.editor import Editor, editing

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).with_name("windows_like.py")
SERVER = [sys.executable, str(SCRIPT), "dgemma_lsp.cli"]
KEY = "0123456789abcdef"
START = types.Position(line=0, character=0)


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of Windows, whose drives are folders here."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("USERPROFILE", r"C:\Users\kim")
    monkeypatch.setenv("LOCALAPPDATA", r"C:\Users\kim\AppData\Local")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c:/w").mkdir(parents=True)
    return tmp_path


async def shown(editor: Editor, marked: str, uri: str) -> list[types.InlineCompletionItem]:
    position = editor.open(marked, uri=uri)
    for _ in range(50):
        if items := await editor.ask(position, uri=uri):
            return items
    raise AssertionError("the engine never answered")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


@pytest.mark.parametrize("command", ["start", "serve", "status", "stop", "pull"])
def test_engine_says_what_to_do_on_windows(command: str) -> None:
    done = run("dgemma_engine.cli", command)
    assert done.returncode == 2
    assert done.stderr == (
        f"dgemma-engine: {command}: the engine does not run on Windows itself; run this in WSL, or set engine.url to "
        "an engine on another machine\n"
    )


def test_every_other_command_is_there_on_windows() -> None:
    done = run("tests.lsp.windows.command_parsers")
    assert done.returncode == 0, done.stderr
    assert "models" in done.stdout.split()


def test_counts_are_kept_below_local_app_data(user: Path) -> None:
    done = run("dgemma_lsp.cli", "stats", "--delete")
    stats = r"C:\Users\kim\AppData\Local\dgemma-lsp\stats.json"
    assert done.stdout == f"{stats}: does not exist; nothing to delete\n", done.stderr


async def test_key_is_read_as_powershell_has_written_it(user: Path) -> None:
    (user / "c:/Users/kim").mkdir(parents=True)
    (user / "c:/Users/kim/.dgemma-key").write_text(f"{KEY}\r\n", encoding="utf-16")
    keys = ApiKeys.read(None, {"DGEMMA_API_KEY": KEY})
    async with running_server(settings=HttpSettings(bind=FREE_PORT.bind, keys=keys)) as server:
        options = {"engine": {"url": server.url, "keyFile": "~/.dgemma-key"}}
        async with editing(user / "unused", command=SERVER, options=options, root="file:///c%3A/w") as editor:
            assert await shown(editor, "x = |\n", "file:///c%3A/w/a.py")


async def test_answers_come_from_elsewhere_for_documents_on_a_drive(user: Path) -> None:
    engine = AnsweringEngine("alpha\n  beta")
    async with (
        running_server(engine) as server,
        editing(
            user / "unused",
            command=SERVER,
            options={"engine": {"url": server.url}},
            root=None,
            folders=["file:///C:/w"],
        ) as editor,
    ):
        uri = "file:///c%3A/w/src/a.py"
        (item,) = await shown(editor, "def f():\r\n  x = |\r\n", uri)
        assert item.insert_text is not None
        assert engine.contexts[-1].path == "src/a.py", "relative to the folder, whatever the case of its drive"
        assert engine.contexts[-1].prefix == "def f():\n  x = ", "line ends of the model"
        # The same document in another spelling is the same document.
        other = "file:///C:/w/src/a.py"
        editor.edit(types.Position(line=1, character=6), types.Position(line=1, character=6), "1 + ", uri=other)
        await editor.ask(types.Position(line=1, character=10), uri=other)
        assert engine.contexts[-1].prefix == "def f():\n  x = 1 + "
        assert len({context.document.partition("/file:")[2] for context in engine.contexts}) == 1
        editor.client.text_document_did_close(
            types.DidCloseTextDocumentParams(text_document=types.TextDocumentIdentifier(uri="FILE:///C:/w/src/a.py"))
        )
        assert await editor.ask(START, uri=uri) == []
    done = run("dgemma_lsp.cli", "stats")
    assert "requests" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "uri",
    [
        "file:///c%3A/w/.env",
        "file:///C:/w/.ENV",
        "file:///c%3A/w/.env.",
        "file:///c%3A/w/.env%3A%3A%24DATA",
        "file:///c%3A/w%5C.env",
        "file://server/share/.env",
        r"C:\w\.env",
        "file:///c%3A/w/Build/out.py",
        "file:///C:/Users/Kim/Notes/a.py",
        "file:///C:/W/build/OUT.py",
    ],
)
async def test_private_files_are_private_in_every_spelling(user: Path, uri: str) -> None:
    (user / "c:/w/.git").mkdir()
    (user / "c:/w/.gitignore").write_text("build/\n")
    (user / "c:/W").symlink_to(user / "c:/w")
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        options = {"engine": {"url": server.url}, "privateFiles": ["~/notes/"]}
        async with editing(user / "unused", command=SERVER, options=options, root="file:///c%3A/w") as editor:
            await shown(editor, "x = |\n", "file:///c%3A/w/a.py")
            num_asked = len(engine.contexts)
            assert await editor.ask(editor.open("secret = |\n", uri=uri), uri=uri) == []
            await until(lambda: any("private" in status.message for status in editor.statuses))
    assert all("secret" not in context.prefix for context in engine.contexts[num_asked:])


async def test_text_of_other_files_is_read_from_the_drive(user: Path) -> None:
    (user / "c:/w/shapes.py").write_bytes(b"def area(width, height):\r\n    return width * height\r\n")
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        options = {"engine": {"url": server.url}}
        async with editing(user / "unused", command=SERVER, options=options, root="file:///c%3A/w") as editor:
            uri = "file:///c%3A/w/a.py"
            await shown(editor, "from shapes import area\n\nx = area(|\n", uri)
            for _ in range(20):
                if any(context.snippets for context in engine.contexts):
                    break
                position = types.Position(line=2, character=9)
                editor.edit(position, position, " ", uri=uri)
                await editor.ask(position, uri=uri)
    found = next(context.snippets for context in engine.contexts if context.snippets)
    assert [snippet.path for snippet in found] == ["shapes.py"]


async def test_without_an_engine_elsewhere_the_status_says_what_to_do(user: Path) -> None:
    async with editing(user / "unused", command=SERVER, root="file:///c%3A/w") as editor:
        uri = "file:///c%3A/w/a.py"
        assert await editor.ask(editor.open("x = |\n", uri=uri), uri=uri) == []
        assert editor.statuses[-1].kind == "inactive"
        assert "open the folder in WSL, or set engine.url" in editor.statuses[-1].message
        assert editor.missing == []
