"""Learning a repository in Neovim: the hint that comes once, progress, result, undo, and cancellation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.editors.neovim.conftest import Start
from tests.editors.neovim.window import Window

SERVER = Path(__file__).parents[2] / "lsp/repository_learning/learning_server.py"
BARS = """
_G.bars = {}
vim.api.nvim_create_autocmd("LspProgress", { callback = function(event)
  table.insert(_G.bars, event.data.params.value.message or event.data.params.value.kind)
end })
"""

Learn = Callable[..., Window]


@pytest.fixture
def learn(start: Start, tmp_path: Path) -> Learn:
    """Starts a Neovim in a repository, whose server learns in a mode of `learning_server`."""
    repo = tmp_path / "repo"
    (repo / ".git").mkdir(parents=True)

    def start_one(mode: str = "better", *, num_files: int = 1) -> Window:
        for index in range(num_files - 1):
            (repo / f"{index}.py").touch()
        shared = f"XDG_DATA_HOME={tmp_path / 'data'} XDG_STATE_HOME={tmp_path / 'state'}".split()
        cmd = ["env", *shared, sys.executable, str(SERVER), str(tmp_path / "record"), mode]
        file = repo / "a.py"
        file.write_text("x = \n")
        window = start(file, cmd=cmd)
        window.lua(BARS)
        window.look(80, 24)
        return window

    return start_one


def events(folder: Path) -> list[str]:
    record = folder / "record"
    return record.read_text().splitlines() if record.exists() else []


def test_repository_is_learnt_and_forgotten(learn: Learn, tmp_path: Path) -> None:
    window = learn()
    window.lua("vim.cmd.DgemmaLearn()")
    window.hear("installed: of 40 holes 9 were right before and 14 after")
    window.hear(":DgemmaForget removes it")
    assert "measuring without an adapter" in window.lua("return _G.bars")
    window.lua("vim.cmd.DgemmaForget()")
    window.hear("is removed; the model answers as it was")
    assert [line.split()[0] for line in events(tmp_path) if line.startswith(("tune", "adapters"))] == [
        "tune",
        "adapters",
    ]
    window.lua("vim.cmd.DgemmaForget()")
    window.hear("has no adapter")


def test_adapter_that_is_no_better_is_reported_without_an_undo(learn: Learn) -> None:
    window = learn("worse")
    window.lua("vim.cmd.DgemmaLearn()")
    window.hear("not installed")
    assert not any("DgemmaForget" in said for said in window.said())


def test_failure_is_one_sentence(learn: Learn) -> None:
    window = learn("fails")
    window.lua("vim.cmd.DgemmaLearn()")
    window.hear("12 files are too few")


def test_learning_is_stopped_and_resumed(learn: Learn, tmp_path: Path) -> None:
    window = learn("slow")
    window.lua("vim.cmd.DgemmaLearn()")
    window.until(lambda: "training" in window.lua("return _G.bars"))
    window.lua("vim.cmd.DgemmaLearn()")
    window.hear("a repository is being learnt already")
    window.lua("vim.cmd.DgemmaCancel()")
    window.hear("what is learnt so far is kept; :DgemmaLearn goes on with it")
    window.until(lambda: "ended" in events(tmp_path))
    window.lua("vim.cmd.DgemmaLearn()")
    window.until(lambda: "goes on" in events(tmp_path))
    window.lua("vim.cmd.DgemmaCancel()")


def test_hint_comes_once(learn: Learn, tmp_path: Path) -> None:
    first = learn("worse", num_files=201)
    first.lua("_G.choice = 2")
    first.keys("Ay")
    first.see_ghost()
    first.keys("<Esc>")
    [choices] = first.until(lambda: list(first.lua("return _G.chosen")))
    assert choices[0].startswith("Learn it (20 minutes")
    first.close()
    assert not [line for line in events(tmp_path) if line.startswith("tune")]
    second = learn("worse", num_files=201)
    second.keys("Ay")
    second.see_ghost()
    second.keys("<Esc>")
    second.lua("vim.wait(500)")
    assert list(second.lua("return _G.chosen")) == []


def test_hint_is_accepted(learn: Learn) -> None:
    window = learn(num_files=201)
    window.keys("Ay")
    window.see_ghost()
    window.keys("<Esc>")
    window.hear("installed: of 40 holes")


def test_statusline_names_the_repository(learn: Learn) -> None:
    window = learn()
    window.lua(
        "require('dgemma.status').take({ kind = 'ready', message = '', percent = 100, adapter = '/w/my%repo' }, ...)",
        window.lua("return vim.lsp.get_clients({ name = 'dgemma' })[1].id"),
    )
    assert window.lua("return require('dgemma').status()") == "dgemma ready +my%%repo"
