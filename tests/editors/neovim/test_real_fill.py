"""Filling with the real server and engine: after `v`, after `V`, on a placeholder, as a code action, and cancelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.neovim.conftest import Start
from tests.editors.neovim.window import Window

AREA = (
    "width = 3\nheight = 4\n\n\ndef area(width, height):\n    return width * height\n\n\nprint(area(width, height))\n"
)
SHAPE = "\n\nclass Shape:\n    def area(self, width, height):\n        pass\n"
FILLED = SHAPE.replace("pass", "return width * height")

CODE_ACTION = """
vim.lsp.buf.code_action({ apply = true, context = { only = { "refactor.rewrite.fill" }, diagnostics = {} } })
"""


@pytest.fixture
def warm(start: Start) -> Start:
    """Starts a Neovim whose engine has loaded: until then every fill is refused with a message."""

    def start_warm(content: str) -> Window:
        window = start(content)
        window.keys("GA")
        ready = "return require('dgemma').status() == 'dgemma ready'"
        window.until(lambda: window.lua(ready), timeout_s=60, about="the engine is ready")
        window.keys("<Esc>")
        return window

    return start_warm


@pytest.mark.parametrize(
    ("text", "keys", "filled"),
    [
        (AREA + SHAPE, "14GV:DgemmaFill<CR>", AREA + FILLED),
        (AREA + SHAPE, "14G0fp:DgemmaFill<CR>", AREA + FILLED),
        (AREA + "print(area(0))\n", "10G0f0v:DgemmaFill<CR>", AREA + "print(area(width, height))\n"),
    ],
    ids=["V", "placeholder", "v"],
)
def test_selection_or_placeholder_is_filled_in_one_undo_step(
    warm: Start, tmp_path: Path, text: str, keys: str, filled: str
) -> None:
    window = warm(text)
    window.keys(keys)
    window.until(lambda: window.text() + "\n" == filled, timeout_s=40, about=filled)
    window.keys("u")
    window.until(lambda: window.text() + "\n" == text, about="undone in one step")
    window.keys("<C-r>")
    window.save()
    assert (tmp_path / "a.py").read_text() == filled


def test_code_action_fills(warm: Start, tmp_path: Path) -> None:
    window = warm(AREA + SHAPE)
    window.keys("14GV")
    window.lua("_G.choice = 1")
    window.lua(CODE_ACTION)
    window.until(lambda: window.text() + "\n" == AREA + FILLED, timeout_s=40, about="filled")
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + FILLED


def test_cancelled_fill_leaves_the_file(warm: Start, tmp_path: Path) -> None:
    window = warm(AREA + SHAPE)
    window.lua("vim.cmd('14DgemmaFill'); vim.cmd.DgemmaCancel()")
    window.until(lambda: window.lua("return vim.fn.maparg('<C-c>', 'n')") == "", about="the key is free again")
    window.until(lambda: window.lua("return require('dgemma').status()") == "dgemma ready", about="nothing runs")
    window.lua("vim.wait(500)")
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + SHAPE


@pytest.mark.parametrize(
    ("name", "text", "command", "why"),
    [
        ("a.py", "x = 1\n", "DgemmaFill", "not on a placeholder"),
        ("a.py", "x = 1\n\n\ny = 2\n", "2DgemmaFill", "nothing is selected"),
        (".env", "KEY=1\n", "1DgemmaFill selection", "private"),
        ("a.py", "x = 1\n" * 400_000, "2,300000DgemmaFill", "too long"),
    ],
    ids=["nothing to fill", "empty selection", "private file", "huge selection"],
)
def test_refusal_is_reported_in_one_sentence(
    start: Start, tmp_path: Path, name: str, text: str, command: str, why: str
) -> None:
    window = start(text, name=name, filetypes=["python", "sh", "env"])
    window.lua("vim.cmd(...)", command)
    sentence = window.hear("dgemma: ")
    assert why in sentence
    window.lua("vim.wait(300)")
    assert window.said() == [sentence]
    window.save()
    assert (tmp_path / name).read_text() == text
