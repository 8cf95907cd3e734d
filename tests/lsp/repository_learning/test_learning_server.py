"""Learning a repository through the server: progress, result, undo, cancellation, and the hint that comes once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import Editor, editing
from tests.lsp.waiting import until

SERVER = Path(__file__).with_name("learning_server.py")
OFFERS = {"dgemma": {"learnRepository": True}}
COMMAND = "dgemma.learnRepository"


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keeps adapters and state below the test's folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    made = tmp_path / "repo"
    (made / "src").mkdir(parents=True)
    return made


def fill_with_files(folder: Path, number: int) -> None:
    for index in range(number):
        (folder / f"{index}.py").write_text("")


@asynccontextmanager
async def session(record: Path, root: Path | None, mode: str = "better", **options: Any) -> AsyncGenerator[Editor]:
    command = [sys.executable, str(SERVER), str(record), mode]
    uri = None if root is None else root.as_uri()
    async with editing(record, command=command, root=uri, **options) as editor:
        yield editor


async def request(editor: Editor, method: str, params: Any) -> Any:
    return await editor.client.protocol.send_request_async(f"dgemma/{method}", params)


async def ready(editor: Editor) -> None:
    """Asks for a completion, and waits until the engine was ready."""
    await editor.ask(editor.open("x = |\n", uri="untitled:U"), uri="untitled:U")
    await until(lambda: "ready" in editor.kinds())


def told(editor: Editor) -> list[str]:
    return [message.message for message in editor.client.messages]


def adapters(folder: Path) -> list[Path]:
    return list((folder / "data/dgemma-lsp/adapters").glob("*/about.json"))


async def test_repository_is_learnt_with_progress_and_forgotten(folders: Path, repo: Path) -> None:
    options = {"engine": {"device": "cpu"}, "privateFiles": ["*.txt", "-secret/"]}
    async with session(folders / "record", repo, options=options) as editor:
        token = "mine"
        uri = (repo / "src/a.py").as_uri()
        answer = await request(editor, "learnRepository", {"uri": uri, "workDoneToken": token})
        assert (answer.root, answer.installed, answer.before, answer.after) == (str(repo), True, 0.225, 0.35)
        assert answer.message == "installed: of 40 holes 9 were right before and 14 after"
        values: list[Any] = editor.client.progress_reports[token]
        assert values[0].title == "Learning repo" and values[0].cancellable
        assert (values[1].percentage, values[1].message) == (1, "measuring without an adapter")
        assert len(adapters(folders)) == 1
        gone = await request(editor, "forgetRepository", {"uri": uri})
        assert gone.root == str(repo) and "is removed" in gone.message
        assert adapters(folders) == []
        with pytest.raises(JsonRpcException, match="has no adapter"):
            await request(editor, "forgetRepository", {})
        ran = [line for line in editor.events() if line.startswith(("tune", "adapters"))]
        patterns = "--private-file=*.txt --private-file=-secret/"
        assert ran == [
            f"tune {repo} --json --resume-if-possible --model=tiny --device=cpu {patterns}",
            f"adapters rm {repo}",
        ]


async def test_cached_answers_of_the_model_without_the_adapter_are_dropped(folders: Path, repo: Path) -> None:
    async with session(folders / "record", repo, options={"speculation": False}) as editor:
        position = editor.open("x = |\n", uri="untitled:U")
        for _ in range(2):
            await editor.ask(position, uri="untitled:U")
        num_asked = len([line for line in editor.events() if line.startswith("asked")])
        await request(editor, "learnRepository", {})
        await editor.ask(position, uri="untitled:U")
        assert len([line for line in editor.events() if line.startswith("asked")]) == num_asked + 1


async def test_adapter_that_is_no_better_is_reported_and_nothing_is_installed(folders: Path, repo: Path) -> None:
    async with session(folders / "record", repo, "worse") as editor:
        answer = await request(editor, "learnRepository", {})
        assert (answer.installed, answer.message) == (False, "not installed")
    assert adapters(folders) == []


@pytest.mark.parametrize(
    ("mode", "sentence"), [("fails", "12 files are too few; tune needs 20"), ("silent", "ended without a result")]
)
async def test_failure_is_one_sentence(folders: Path, repo: Path, mode: str, sentence: str) -> None:
    async with session(folders / "record", repo, mode, progress=True) as editor:
        with pytest.raises(JsonRpcException, match=sentence):
            await request(editor, "learnRepository", {})
        # The command of editors without an extension says the same.
        await editor.client.workspace_execute_command_async(types.ExecuteCommandParams(command=COMMAND))
        assert len(told(editor)) == 1 and sentence in told(editor)[0]
        runs = [line for line in editor.events() if line.startswith("tune")]
        assert len(runs) == 2


async def test_cancelled_learning_ends_the_process_and_the_next_one_goes_on(folders: Path, repo: Path) -> None:
    async with session(folders / "record", repo, "slow") as editor:
        asked = editor.client.protocol.send_request("dgemma/learnRepository", {"workDoneToken": "t"}, msg_id="1")
        await until(lambda: len(editor.client.progress_reports.get("t", [])) >= 3)
        with pytest.raises(JsonRpcException, match="being learnt already"):
            await request(editor, "learnRepository", {})
        editor.client.cancel_request(types.CancelParams(id="1"))
        with pytest.raises(JsonRpcException):
            await asyncio.wrap_future(asked)
        await until(lambda: "ended" in editor.events())
        again = editor.client.protocol.send_request("dgemma/learnRepository", {"workDoneToken": "u"}, msg_id="2")
        await until(lambda: len(editor.client.progress_reports.get("u", [])) >= 2)
        assert ["goes on" in editor.events(), editor.events().count("begins")] == [True, 1]
        editor.client.window_work_done_progress_cancel(types.WorkDoneProgressCancelParams(token="u"))
        with pytest.raises(JsonRpcException):
            await asyncio.wrap_future(again)


async def test_learning_that_another_window_began_is_resumed(folders: Path, repo: Path) -> None:
    """The editor is closed in the middle; the state to resume from is in the store, not in the server."""
    for number in ("1", "2"):
        async with session(folders / "record", repo, "slow") as editor:
            editor.client.protocol.send_request("dgemma/learnRepository", {"workDoneToken": "t"}, msg_id=number)
            await until(lambda editor=editor: len(editor.client.progress_reports.get("t", [])) >= 3)
        assert (folders / "record").read_text().splitlines().count("ended") == int(number)
    async with session(folders / "record", repo, "better") as editor:
        assert (await request(editor, "learnRepository", {})).installed
        assert [line for line in editor.events() if line in ("begins", "goes on")] == ["begins", "goes on", "goes on"]


async def test_nothing_is_forgotten_while_a_repository_is_learnt(folders: Path, repo: Path) -> None:
    async with session(folders / "record", repo, "slow") as editor:
        asked = editor.client.protocol.send_request("dgemma/learnRepository", {"workDoneToken": "t"}, msg_id="1")
        await until(lambda: len(editor.client.progress_reports.get("t", [])) >= 3)
        with pytest.raises(JsonRpcException, match="is being learnt; cancel that first, or wait for it"):
            await request(editor, "forgetRepository", {})
        assert not [line for line in editor.events() if line.startswith("adapters")]
        editor.client.cancel_request(types.CancelParams(id="1"))
        # The process has not ended yet, and forgetting waits for that.
        gone = await request(editor, "forgetRepository", {})
        assert gone.root == str(repo)
        events = editor.events()
        assert events.index("ended") < events.index(f"adapters rm {repo}")
        with pytest.raises(JsonRpcException):
            await asyncio.wrap_future(asked)
        with pytest.raises(JsonRpcException, match="has no adapter"):
            await request(editor, "forgetRepository", {})


@pytest.mark.parametrize(
    ("mode", "root", "params", "sentence"),
    [
        ("tiny", True, {}, "the model tiny takes no adapters"),
        ("better", False, {}, "open the folder of the repository first"),
        ("better", True, {"uri": 7}, "uri must be a text or null"),
    ],
)
async def test_learning_without_its_conditions_is_refused(
    folders: Path, repo: Path, mode: str, root: bool, params: dict[str, Any], sentence: str
) -> None:
    async with session(folders / "record", repo if root else None, mode) as editor:
        with pytest.raises(JsonRpcException, match=sentence):
            await request(editor, "learnRepository", params)
        assert not [line for line in editor.events() if line.startswith("tune")]


async def test_learning_for_an_engine_elsewhere_is_refused(folders: Path, repo: Path) -> None:
    options = {"engine": {"url": "http://127.0.0.1:9"}}
    async with session(folders / "record", repo, options=options) as editor:
        with pytest.raises(JsonRpcException, match=r"the engine runs on 127\.0\.0\.1:9"):
            await request(editor, "learnRepository", {})


async def test_hint_comes_once_for_a_large_repository(folders: Path, repo: Path) -> None:
    fill_with_files(repo, 201)
    for is_first in (True, False):
        async with session(folders / f"record{is_first}", repo, experimental=OFFERS) as editor:
            await ready(editor)
            if is_first:
                await until(lambda editor=editor: bool(editor.hints))
                (hint,) = editor.hints
                assert (hint.root, hint.uri) == (str(repo), repo.as_uri())
                assert hint.message == "repo has more than 200 files and is not learnt yet"
            await asyncio.sleep(0.3)
            assert len(editor.hints) == is_first and told(editor) == []
    # An editor without an offer of its own gets no second hint either.
    async with session(folders / "record3", repo) as editor:
        await ready(editor)
        await asyncio.sleep(0.3)
        assert told(editor) == []
    names = [path.name for path in (folders / "state/dgemma-lsp/hinted-repositories").iterdir()]
    assert len(names) == 1 and "repo" not in names[0]


async def test_editor_without_an_offer_is_told_the_command(folders: Path, repo: Path) -> None:
    fill_with_files(repo, 201)
    async with session(folders / "record", repo) as editor:
        await ready(editor)
        await until(lambda: bool(told(editor)))
        assert COMMAND in told(editor)[0] and editor.hints == []


@pytest.mark.parametrize(
    "why", ["few files", "ignored files", "an adapter", "switched off", "a model without adapters"]
)
async def test_no_hint(folders: Path, repo: Path, why: str) -> None:
    fill_with_files(repo, 200 if why == "few files" else 201)
    options, mode = {"enabled": why != "switched off"}, "tiny" if why == "a model without adapters" else "better"
    if why == "ignored files":
        (repo / ".gitignore").write_text("7.py\n")
    async with session(folders / "record", repo, mode, experimental=OFFERS, options=options) as editor:
        if why == "an adapter":
            await request(editor, "learnRepository", {})
        await editor.ask(editor.open("x = |\n", uri="untitled:U"), uri="untitled:U")
        await asyncio.sleep(0.5)
        assert editor.hints == [] and told(editor) == []
        # Without a hint nothing is recorded.
        assert not (folders / "state/dgemma-lsp/hinted-repositories").exists()
