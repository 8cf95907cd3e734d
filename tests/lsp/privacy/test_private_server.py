"""Private files, over stdio: neither completed nor sent to the engine, and the status says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from tests.lsp.editor import editing
from tests.lsp.waiting import until

pytestmark = pytest.mark.e2e


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


async def test_private_file_is_not_completed_and_the_status_says_why(record: Path):
    async with editing(record, answers={"": "1"}) as editor:
        env, key = "file:///w/.env", "untitled:Untitled-1"
        assert await editor.ask(editor.open("PASSWORD=|", uri=env), uri=env) == []
        await until(lambda: editor.kinds()[-1] == "inactive" and "private" in editor.statuses[-1].message)
        assert editor.statuses[-1].message == "this file is private (.env)"
        assert editor.statuses[-1].uri == env, "it is about this document only"
        head = "-----BEGIN PRIVATE KEY-----\n|"
        assert await editor.ask(editor.open(head, uri=key), uri=key) == []
        await until(lambda: editor.statuses[-1].message == "this file is private (a key)")
        assert editor.events() == [], "the engine was not even started"
        assert len(await editor.ask(editor.open("x = |"))) == 1
        await until(lambda: editor.kinds()[-1] == "ready")
        assert not editor.client.messages, "no message is shown"


async def test_status_is_ready_again_in_the_next_document(record: Path):
    """The second answer comes from the cache, so that no message of the engine changes the status."""
    async with editing(record, answers={"": "1"}) as editor:
        env, position = "file:///w/.env", editor.open("x = |")
        assert len(await editor.ask(position)) == 1
        assert await editor.ask(editor.open("PASSWORD=|", uri=env), uri=env) == []
        await until(lambda: editor.kinds()[-1] == "inactive")
        assert len(await editor.ask(position)) == 1
        await until(lambda: editor.kinds()[-1] == "ready")
        assert editor.statuses[-1].uri == ""


async def test_ignored_file_is_not_completed_until_the_ignore_file_changes(record: Path, tmp_path: Path):
    folder = tmp_path / "r"
    (folder / ".git").mkdir(parents=True)
    (folder / ".gitignore").write_text("*.gen.py\n")
    async with editing(record, answers={"": "1"}) as editor:
        uri = (folder / "a.gen.py").as_uri()
        position = editor.open("x = |", uri=uri)
        assert await editor.ask(position, uri=uri) == []
        await until(lambda: "private (.gitignore: *.gen.py)" in editor.statuses[-1].message)
        (folder / ".gitignore").write_text("nothing\n")
        change = types.FileEvent(uri=(folder / ".gitignore").as_uri(), type=types.FileChangeType.Changed)
        editor.client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams(changes=[change]))
        assert len(await editor.ask(position, uri=uri)) == 1


async def test_workspace_makes_files_private_and_removes_its_own_patterns(record: Path):
    uri, users = "file:///w/hidden/a.py", "file:///w/secret/a.py"
    async with editing(record, answers={"": "1"}, options={"privateFiles": ["/w/secret/"]}) as editor:
        position = editor.open("x = |", uri=users)
        editor.open("x = |", uri=uri)
        for patterns, num_items in ((["hidden/"], 0), ([], 1)):
            settings: Any = {"dgemma": {"privateFiles": patterns}}
            editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
            assert len(await editor.ask(position, uri=uri)) == num_items
            assert await editor.ask(position, uri=users) == []
            await until(lambda: "dgemma.privateFiles: /w/secret/" in editor.statuses[-1].message)


@pytest.mark.parametrize("patterns", [["!.env", "!id_rsa", "!*.pem"], [], ["!*"], "!*", {"a": 1}, [None], ["!secret/"]])
@pytest.mark.parametrize("way", ["pulled", "pushed"])
async def test_workspace_cannot_allow_a_private_file(record: Path, patterns: Any, way: str):
    uris = ("file:///w/.env", "file:///w/id_rsa", "file:///w/a.pem", "file:///w/secret/a.py")
    configuration = {"privateFiles": patterns} if way == "pulled" else None
    options = {"privateFiles": ["secret/"]}
    async with editing(record, answers={"": "1"}, options=options, configuration=configuration) as editor:
        if way == "pushed":
            settings: Any = {"dgemma": {"privateFiles": patterns}}
            editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
        for uri in uris:
            assert await editor.ask(editor.open("x = |", uri=uri), uri=uri) == [], uri
        assert editor.events() == [], "the engine was not even started"
        if "!" in str(patterns):
            await until(lambda: bool(editor.client.messages))
            (told,) = [message.message for message in editor.client.messages if "counts as" not in message.message]
            assert told.startswith("dgemma.privateFiles: '!")
            assert "is ignored here: a workspace may add entries and takes none away" in told


async def test_user_allows_a_file_also_where_the_configuration_repeats_it(record: Path):
    own: Any = {"privateFiles": ["*.sql", "!a.sql", "!.env.example"]}
    async with editing(record, answers={"": "1"}, options=own, configuration=own) as editor:
        for name, num_items in ((".env.example", 1), ("a.sql", 1), ("b.sql", 0)):
            uri = f"file:///w/{name}"
            assert len(await editor.ask(editor.open("x = |", uri=uri), uri=uri)) == num_items, name
        assert not editor.client.messages


async def test_odd_line_of_an_ignore_file_is_reported_once_and_blocks_nothing(record: Path, tmp_path: Path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r/.gitignore").write_text("*.gen.py\n[z-a]\n")
    async with editing(record, answers={"": "1"}) as editor:
        for name, num_items in (("a.py", 1), ("b.py", 1), ("c.gen.py", 0), ("z", 0), ("a.py", 1)):
            uri = (tmp_path / "r" / name).as_uri()
            assert len(await editor.ask(editor.open("x = |", uri=uri), uri=uri)) == num_items, name
        (told,) = [message.message for message in editor.client.messages]
        assert told.startswith(f"{tmp_path}/r/.gitignore, line 2: [z-a] ")


async def test_odd_pattern_of_the_setting_is_named_and_the_others_hold(record: Path):
    async with editing(record, answers={"": "1"}, options={"privateFiles": ["*.gen.py", "[z-a]", ""]}) as editor:
        for name, num_items in (("a.py", 1), ("c.gen.py", 0)):
            uri = f"file:///w/{name}"
            assert len(await editor.ask(editor.open("x = |", uri=uri), uri=uri)) == num_items, name
        (told,) = [message.message for message in editor.client.messages]
        assert told == (
            "dgemma.privateFiles: entry 2 cannot be used: '[z-a]': the range z-a names z only; write a-z; "
            "nor can entry 3; the other entries hold"
        )


@pytest.mark.parametrize("name", ["Python", "py"])
async def test_paused_language_is_compared_without_case(record: Path, name: str):
    async with editing(record, answers={"": "1"}, options={"pausedLanguages": [name]}) as editor:
        assert await editor.ask(editor.open("x = |")) == []
        await until(lambda: editor.statuses[-1].message == "python is paused by dgemma.pausedLanguages")


async def test_settings_of_ten_megabytes_do_not_end_the_server(record: Path):
    huge: Any = {f"unknownSetting{index}": "x" * 40 for index in range(150_000)} | {"seed": 7}
    async with editing(record, answers={"": "1"}, options={"pausedLanguages": 7}) as editor:
        editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=huge))
        assert len(await editor.ask(editor.open("x = |"))) == 1
        told = [message.message for message in editor.client.messages]
        assert len(told) == 7
        assert "pausedLanguages must be a list of at most 1000 language ids" in told[0]
        assert "149995 more settings cannot be used" in told[-1]
