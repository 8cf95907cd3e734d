"""Accepting ghost text in parts, cycling through candidates, dropping stale answers; answers are scripted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.neovim.conftest import Record, Start
from tests.editors.neovim.window import ATTACHED

QUESTION = "textDocument/inlineCompletion"
THREE = {"automatic": ["one(1)"], "invoked": ["one(1)", "two(2)", "three(3)"]}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_accepting_words_then_lines_then_the_rest(scripted: Start, tmp_path: Path, end: str) -> None:
    text = f"x ={end}y{end}"
    script = {"by_line": {"x =": [" alpha('é😋', beta)\n\tgamma\ndelta"]}}
    window = scripted(text.encode(), script=script)
    window.keys("A")
    window.see_ghost(" alpha('é😋', beta)\n\tgamma\ndelta")
    window.keys("<M-Right>")
    window.see_ghost("('é😋', beta)\n\tgamma\ndelta")
    assert window.text() == "x = alpha\ny"
    for line, rest in (
        ("x = alpha('", "é😋', beta)\n\tgamma\ndelta"),
        ("x = alpha('é😋", "', beta)\n\tgamma\ndelta"),
    ):
        window.keys("<M-Right>")
        window.see_ghost(rest)
        assert window.line() == line
    window.keys("<M-Down>")
    window.see_ghost("\n\tgamma\ndelta")
    assert window.line() == "x = alpha('é😋', beta)"
    window.keys("<M-Down>")
    window.see_ghost("\ndelta")
    assert window.text() == "x = alpha('é😋', beta)\n\tgamma\ny"
    window.keys("<Tab>")
    window.until(lambda: window.text() == "x = alpha('é😋', beta)\n\tgamma\ndelta\ny")
    window.save()
    written = f"x = alpha('é😋', beta){end}\tgamma{end}delta{end}y{end}"
    assert (tmp_path / "a.py").read_bytes().decode() == written


def test_rest_after_an_accepted_word_stays_while_it_is_typed(scripted: Start) -> None:
    window = scripted("x =\n", script={"by_line": {"x =": [" alpha + beta"]}})
    window.keys("A")
    window.see_ghost(" alpha + beta")
    window.keys("<M-Right>")
    window.see_ghost(" + beta")
    window.keys(" +")
    window.see_ghost(" beta")
    window.keys("<Tab>")
    window.until(lambda: window.line() == "x = alpha + beta")


def test_every_part_is_an_undo_step(scripted: Start, tmp_path: Path) -> None:
    window = scripted("x =\n", script={"by_line": {"x =": [" alpha + beta\ngamma"]}})
    window.keys("A")
    window.see_ghost()
    window.keys("<M-Right>")
    window.see_ghost(" + beta\ngamma")
    window.keys("<Tab>")
    window.until(lambda: window.text() == "x = alpha + beta\ngamma")
    window.keys("!<Esc>")
    for text in ("x = alpha + beta\ngamma", "x = alpha", "x ="):
        window.keys("u")
        window.until(lambda text=text: window.text() == text, about=text)
    window.save()
    assert (tmp_path / "a.py").read_text() == "x =\n"


def test_keys_cycle_through_three_candidates(scripted: Start, tmp_path: Path) -> None:
    window = scripted("x = \n", script=THREE)
    window.keys("A")
    window.see_ghost("one(1)")
    window.keys("<M-]>")
    window.see_ghost("two(2) (2/3)")
    window.keys("<M-]>")
    window.see_ghost("three(3) (3/3)")
    window.keys("<M-]>")
    window.see_ghost("one(1) (1/3)")
    window.keys("<M-[>")
    window.see_ghost("three(3) (3/3)")
    window.keys("<Tab>")
    window.until(lambda: window.line() == "x = three(3)")
    window.save()
    assert (tmp_path / "a.py").read_text() == "x = three(3)\n"


def test_item_that_typed_text_contradicts_is_neither_shown_nor_accepted(scripted: Start, tmp_path: Path) -> None:
    window = scripted("x = \n", script={"by_line": {"x = ": ["alpha"]}})
    window.lua("vim.bo.expandtab, vim.bo.softtabstop, vim.bo.shiftwidth = true, 4, 4")
    window.keys("A")
    window.see_ghost("alpha")
    window.keys("b")
    window.until(lambda: window.line() == "x = b")
    window.keys("<Tab>!")
    window.until(lambda: window.line().endswith("!"))
    assert window.line() == "x = b   !"
    window.no_ghost()
    window.save()
    assert (tmp_path / "a.py").read_text() == "x = b   !\n"


BURSTS = {
    "b<Tab>!": "x = b   !",
    "a<Tab>!": "x = alpha + beta!",
    "<Tab>!": "x = alpha + beta!",
    "<M-Right>!": "x = alpha!",
    "<M-Right><M-Right>!": "x = alpha +!",
    "<Tab><Tab>!": "x = alpha + beta    !",
}


@pytest.mark.parametrize("keys", BURSTS)
def test_keys_of_one_burst_take_effect_in_their_order(scripted: Start, keys: str) -> None:
    """A paste, a macro or a slow connection sends keys so: Neovim processes no event between two of them."""
    window = scripted("x = \n", script={"by_line": {"x = ": ["alpha + beta"]}})
    window.lua("vim.bo.expandtab, vim.bo.softtabstop, vim.bo.shiftwidth = true, 4, 4")
    window.keys("A")
    window.see_ghost("alpha + beta")
    window.keys(keys)
    window.until(lambda: window.line() == BURSTS[keys], about=BURSTS[keys], timeout_s=5)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("vim.keymap.set('i', '<F5>', 'plain<C-v>u00e9')", "x = plainé!"),
        ("vim.keymap.set('i', '<F5>', function() vim.api.nvim_put({ 'called' }, 'c', false, true) end)", "x = called!"),
        ("vim.keymap.set('i', '<F5>', function() return 'é<Space>z' end, { expr = true })", "x = é z!"),
        ("vim.cmd([[inoremap <expr> <F5> 'à' .. \"\\<C-v>u00e9\"]])", "x = àé!"),
        ("vim.cmd([[inoremap zz again]]) vim.keymap.set('i', '<F5>', 'zz', { remap = true })", "x = again!"),
    ],
)
def test_key_keeps_its_earlier_mapping_where_nothing_is_shown(scripted: Start, before: str, expected: str) -> None:
    window = scripted("x = \n", script={})
    window.lua(before)
    window.lua("require('dgemma.keys').map({ accept = '<F5>' })")
    window.keys("A<F5>!")
    window.until(lambda: window.line() == expected, about=expected, timeout_s=5)


def test_server_that_attaches_during_typing_is_asked(scripted: Start) -> None:
    window = scripted("x = \n", script={"by_line": {"x = ": ["1"]}}, wait=False)
    window.keys("A")
    assert not window.lua(ATTACHED)
    window.see_ghost("1")


def test_answer_to_an_older_text_is_not_shown(scripted: Start, record: Record) -> None:
    window = scripted("x = \n", script={"delay_s": 1.0, "by_line": {"x = ": ["alpha"]}})
    window.keys("A")
    window.until(lambda: record.params(QUESTION), about="asked")
    window.keys("b")
    window.until(lambda: window.line() == "x = b")
    seen = window.lua(
        """
        local marks = function()
          local namespace = vim.api.nvim_create_namespace("nvim.lsp.inline_completion")
          return #vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, {})
        end
        local seen = 0
        vim.wait(2500, function() seen = math.max(seen, marks()) end, 5)
        return seen
        """
    )
    assert seen == 0


def test_tab_indents_where_nothing_is_shown(scripted: Start) -> None:
    window = scripted("\n", script={})
    window.lua("vim.bo.expandtab, vim.bo.softtabstop = true, 4")
    window.keys("ia<Tab>b")
    window.until(lambda: window.line() == "a   b")


def test_setup_keeps_the_users_mapping_of_the_accept_key_where_nothing_is_shown(scripted: Start) -> None:
    window = scripted("\n", script={"by_line": {"x": ["yz"]}})
    window.lua(
        """
        vim.keymap.set("i", "<C-l>", "mine")
        require("dgemma").setup({ cmd = { "true" }, keys = { accept = "<C-l>" } })
        """
    )
    window.keys("i<C-l>")
    window.until(lambda: window.line() == "mine")
    window.keys("<C-u>x")
    window.see_ghost("yz")
    window.keys("<C-l>")
    window.until(lambda: window.line() == "xyz")


def test_dismissed_text_is_gone_and_the_file_untouched(scripted: Start, tmp_path: Path) -> None:
    window = scripted("x = \n", script={"by_line": {"x = ": ["alpha"]}})
    window.keys("A")
    window.see_ghost("alpha")
    window.keys("<C-]>")
    window.no_ghost()
    window.keys("<Tab>")
    window.save()
    assert "alpha" not in (tmp_path / "a.py").read_text()


def test_paused_buffer_asks_nothing(scripted: Start, record: Record) -> None:
    window = scripted("x = \n", script={"by_line": {"x = ": ["alpha"]}})
    window.lua("vim.cmd.DgemmaToggle()")
    window.hear("paused in this buffer")
    assert window.lua("return require('dgemma').status()") == "dgemma paused"
    window.keys("Ab<BS>")
    window.lua("vim.wait(600)")
    assert not record.params(QUESTION)
    window.keys("<Esc>")
    window.lua("vim.cmd.DgemmaToggle()")
    window.keys("A")
    window.see_ghost("alpha")


def test_pause_everywhere_applies_to_later_buffers(scripted: Start, record: Record, tmp_path: Path) -> None:
    window = scripted("x = \n", script={"by_line": {"x = ": ["alpha"]}})
    (tmp_path / "b.py").write_text("x = \n")
    window.lua("vim.cmd('DgemmaToggle!')")
    window.lua("vim.cmd.edit(...)", str(tmp_path / "b.py"))
    window.until(lambda: len(record.params("textDocument/didOpen")) == 2, about="opened")
    window.keys("A")
    window.lua("vim.wait(600)")
    assert not record.params(QUESTION)
    window.keys("<Esc>")
    window.lua("vim.cmd.DgemmaToggle()")
    window.keys("A")
    window.see_ghost("alpha")
    window.keys("<Esc>")
    window.lua("vim.cmd.buffer(...)", str(tmp_path / "a.py"))
    assert window.lua("return require('dgemma').status()") == "dgemma paused"
