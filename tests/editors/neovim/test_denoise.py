"""`:DgemmaDenoise`: drafts are drawn, nothing is inserted, and any key removes them; answers are scripted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.neovim.conftest import Record, Start
from tests.editors.neovim.window import Window

DRAWN = """
local namespace = vim.api.nvim_create_namespace("dgemma.denoise")
local mark = vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true })[1]
return mark and { mark[4].virt_text, mark[4].virt_lines or {} } or vim.NIL
"""


def drawn(window: Window) -> str:
    """Returns the pieces on the screen as `text:colour`."""
    mark = window.lua(DRAWN)
    return "|".join(":".join(piece) for line in ([mark[0], *mark[1]] if mark else []) for piece in line)


def test_drafts_are_drawn_by_confidence(scripted: Start, tmp_path: Path) -> None:
    script = {"drafts": ["?", "a?", "ab\nc"], "denoised": ["abc"], "by_line": {"x = ": ["ghost"]}}
    window = scripted("x = \n", script=script)
    window.keys("A")
    window.see_ghost("ghost")
    window.lua("vim.cmd.DgemmaDenoise()")
    window.until(lambda: drawn(window) == "?:DgemmaUnsure| step 1/3, 1 ms:DgemmaStep")
    window.until(lambda: drawn(window) == "a?:DgemmaLikely| step 2/3, 2 ms:DgemmaStep")
    window.until(lambda: drawn(window) == "ab:DgemmaSettled|c:DgemmaSettled| step 3/3, 3 ms:DgemmaStep")
    window.until(lambda: drawn(window) == "abc:DgemmaSettled| offered after 3 steps, 5 ms (stable):DgemmaStep")
    assert window.ghost() is None
    window.save()
    assert drawn(window) == ""
    assert (tmp_path / "a.py").read_text() == "x = \n"


def test_answer_without_a_text_is_reported(scripted: Start) -> None:
    window = scripted("x = \n", script={"drafts": []})
    window.lua("vim.cmd.DgemmaDenoise()")
    assert window.hear("no engine yet") == "dgemma: no engine yet"
    window = scripted("x = \n", script={"drafts": ["?"]})
    window.lua("vim.cmd.DgemmaDenoise()")
    window.hear("nothing that is likely enough after 1 steps")


@pytest.mark.parametrize("keys", ["<Esc>", "b", "<Left>"])
def test_any_key_removes_the_draft_and_cancels(scripted: Start, record: Record, keys: str) -> None:
    window = scripted("x = \n", script={"drafts": ["?"] * 50})
    window.keys("A")
    window.lua("vim.cmd.DgemmaDenoise()")
    window.until(lambda: drawn(window))
    window.keys(keys)
    window.until(lambda: not drawn(window), about="gone")
    window.until(lambda: record.params("$/cancelRequest"), about="cancelled")
    window.lua("vim.wait(300)")
    assert drawn(window) == ""


def test_option_always_draws_drafts_until_the_ghost_text(scripted: Start) -> None:
    script = {"drafts": ["?", "yes"], "delay_s": 0.8, "by_line": {"x = ": ["yes"]}}
    window = scripted("x = \n", script=script, denoise={"always": True})
    window.keys("A")
    window.until(lambda: drawn(window), about="a draft")
    window.until(lambda: window.ghost() == "yes" and not drawn(window), about="ghost text without a draft")
