"""The real command over stdio with `engine.url`: answers, the host in the status, who may set where text is sent."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import HttpSettings
from lsprotocol import types

from tests.engine.http_api.running_server import FREE_PORT, AnsweringEngine, running_server, until
from tests.engine.remote.elsewhere import network_to
from tests.lsp.editor import Editor, editing

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-m", "dgemma_lsp"]
AUDITED = Path(__file__).with_name("audited_server.py")
KEY = "0123456789abcdef"
CANARY = "canary_9e1b"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "rt"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def warnings(editor: Editor) -> list[str]:
    return [message.message for message in editor.client.messages]


async def until_shown(editor: Editor, position: types.Position) -> list[types.InlineCompletionItem]:
    for _ in range(50):
        if items := await editor.ask(position):
            return items
        await asyncio.sleep(0.05)
    raise AssertionError("the engine never answered")


async def test_answers_come_from_elsewhere_and_the_status_names_the_host(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    keys = ApiKeys.read(None, {"DGEMMA_API_KEY": KEY})
    async with running_server(settings=HttpSettings(bind=FREE_PORT.bind, keys=keys)) as server:
        options = {"engine": {"url": server.url, "keyFile": str(key)}}
        async with editing(tmp_path / "unused", command=COMMAND, options=options) as editor:
            (item,) = await until_shown(editor, editor.open("x = |\n"))
            assert item.insert_text == "x = alpha + beta"
            place = f"127.0.0.1:{server.port}"
            assert {status.host for status in editor.statuses} == {place}
            ready = [status for status in editor.statuses if status.kind == "ready"]
            assert ready and ready[-1].message == f"engine at {place}"
            assert editor.missing == [], "no model of this machine is offered"
        assert {context.document.split("/")[0] for context in server.engine.contexts} == {"environment@127.0.0.1"}
    assert not (tmp_path / "rt").exists(), "no engine of this machine was looked for"


async def test_nothing_is_sent_but_to_the_engine_and_nothing_of_private_files(tmp_path: Path) -> None:
    audit, log = tmp_path / "audit.txt", tmp_path / "log.txt"
    async with running_server() as server, network_to(server.port) as network:
        command = [sys.executable, str(AUDITED), str(audit), str(log)]
        network.sent = []
        options = {"engine": {"url": f"http://127.0.0.1:{network.port}"}, "logLevel": "info"}
        async with editing(tmp_path / "unused", command=command, options=options) as editor:
            await until_shown(editor, editor.open("x = |\n"))
            start = types.Position(line=0, character=0)
            for name in (".env", "id_rsa", "secrets.pem"):
                position = editor.open(f"{CANARY} = |\n", uri=f"file:///w/{name}")
                assert await editor.ask(position, uri=f"file:///w/{name}") == []
            await until_shown(editor, editor.open("y = |\n", uri="file:///w/b.py"))
            await editor.ask(start)
        sent = b"".join(network.sent)
        assert b"x = " in sent and CANARY.encode() not in sent
        events = audit.read_text().splitlines()
        families = {line.split()[1] for line in events if line.startswith("socket.__new__")}
        connected = {line for line in events if line.startswith("socket.connect")}
        assert connected == {f"socket.connect ('127.0.0.1', {network.port})"}
        # Unix sockets are only the pair by which an event loop wakes itself.
        assert families <= {"1", "2"} and "2" in families
        assert not [line for line in events if line.startswith(("subprocess", "os.exec", "os.posix_spawn", "os.fork"))]
    assert CANARY not in log.read_text()


@pytest.mark.parametrize(
    "configuration",
    [
        {"engine": {"url": "https://evil.example"}},
        {"engine.url": "https://evil.example"},
        {"engine": {"keyFile": "/home/kim/.ssh/id_rsa"}},
        {"engine": {"plainHttpHosts": ["evil.example"]}},
        {"engine": {"caFile": "/w/ca.pem"}},
        {"engine": {"url": 7}},
    ],
)
async def test_workspace_that_says_where_text_goes_is_refused(tmp_path: Path, configuration: dict[str, Any]) -> None:
    async with running_server() as server:
        options = {"engine": {"url": server.url}}
        session = editing(tmp_path / "unused", command=COMMAND, options=options, configuration=configuration)
        async with session as editor:
            await until(lambda: bool(warnings(editor)))
            (warning,) = warnings(editor)
            assert "is ignored here: only your own settings decide where your text goes" in warning
            await until_shown(editor, editor.open("x = |\n"))
            assert {status.host for status in editor.statuses} == {f"127.0.0.1:{server.port}"}


async def test_configuration_that_repeats_the_users_own_settings_is_no_problem(tmp_path: Path) -> None:
    async with running_server() as server:
        settings = {"engine": {"url": server.url, "plainHttpHosts": ["gpu.lan"]}, "seed": 3}
        session = editing(tmp_path / "unused", command=COMMAND, options=settings, configuration=settings)
        async with session as editor:
            await until_shown(editor, editor.open("x = |\n"))
            assert warnings(editor) == []


async def test_url_of_a_workspace_alone_sends_nothing_anywhere(tmp_path: Path) -> None:
    async with running_server() as server:
        configuration = {"engine": {"url": server.url, "autostart": False}}
        async with editing(tmp_path / "unused", command=COMMAND, configuration=configuration) as editor:
            await until(lambda: bool(warnings(editor)))
            assert await editor.ask(editor.open("x = |\n")) == []
            params = types.DidChangeConfigurationParams(settings={"dgemma": configuration})
            editor.client.workspace_did_change_configuration(params)
            assert await editor.ask(editor.open("y = |\n")) == []
        assert server.engine.contexts == [] and server.engine.num_woken == 0


async def test_editor_does_not_wait_for_a_machine_that_is_silent(tmp_path: Path) -> None:
    async with running_server() as server, network_to(server.port) as network:
        network.to_engine = lambda _data: b""
        options = {"engine": {"url": f"http://127.0.0.1:{network.port}"}}
        async with editing(tmp_path / "unused", command=COMMAND, options=options) as editor:
            asking = asyncio.create_task(editor.ask(editor.open("x = |\n")))
            await until(lambda: editor.kinds()[-1:] == ["loading"])
            assert await editor.client.protocol.send_request_async("dgemma/tally", {})
            assert not asking.done(), "another request is answered meanwhile"
            assert await asking == []
            await until(lambda: editor.statuses[-1].kind == "inactive")
            assert "does not answer" in editor.statuses[-1].message
            assert warnings(editor) == [], "a state of the network is no error"


async def test_cancelled_request_is_cancelled_at_the_engine(tmp_path: Path) -> None:
    engine = AnsweringEngine()
    async with running_server(engine) as server:
        # No deadline ends the request before `until` gives up.
        options = {"engine": {"url": server.url}, "deadlineMs": 60_000}
        async with editing(tmp_path / "unused", command=COMMAND, options=options) as editor:
            await until_shown(editor, editor.open("x = |\n"))
            asking = editor.send(editor.open("SLOW |\n", uri="file:///w/a.py"), msg_id="slow")
            await until(lambda: any("SLOW" in context.prefix for context in engine.contexts))
            editor.client.protocol.notify("$/cancelRequest", types.CancelParams(id="slow"))
            await until(lambda: engine.num_cancelled == 1)
            await asyncio.gather(asyncio.wrap_future(asking), return_exceptions=True)
            assert await editor.ask(editor.open("y = |\n")), "the session goes on"
