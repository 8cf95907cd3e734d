"""Filling a selection: the request, the inserted text, and what prevents an insertion; answers are scripted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.neovim.conftest import Record, Start

TEXT = "def f(a):\n    b = '😋' + a\n    return b\n\n\nf(1)\n"
FILL = "dgemma/fill"


def span(start_line: int, start: int, end_line: int, end: int) -> dict[str, dict[str, int]]:
    return {"start": {"line": start_line, "character": start}, "end": {"line": end_line, "character": end}}


@pytest.mark.parametrize(
    ("keys", "asked", "kind"),
    [
        ("2Gfbvt+h:DgemmaFill<CR>", span(1, 4, 1, 14), "selection"),
        ("2Gf'vf':DgemmaFill<CR>", span(1, 8, 1, 14), "selection"),
        ("2GVj:DgemmaFill<CR>", span(1, 0, 2, 12), "selection"),
        ("2GVj:DgemmaFill description<CR>", span(1, 0, 2, 12), "description"),
        (":2,3DgemmaFill<CR>", span(1, 0, 2, 12), "selection"),
        ("3Gfb:DgemmaFill<CR>", span(2, 11, 2, 11), "placeholder"),
    ],
)
def test_request_holds_range_and_kind(scripted: Start, record: Record, keys: str, asked: object, kind: str) -> None:
    window = scripted(TEXT, script={"fill_message": "nothing fits here"})
    window.keys(keys)
    assert window.hear("nothing fits here") == "dgemma: nothing fits here"
    (params,) = record.params(FILL)
    assert (params["range"], params["kind"]) == (asked, kind)
    assert window.text() + "\n" == TEXT


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fill_is_inserted_as_one_undo_step(scripted: Start, tmp_path: Path, end: str) -> None:
    window = scripted(TEXT.replace("\n", end).encode(), script={"fill": [f"    c = a{end}    return c"]})
    window.keys("Gox = 1<Esc>2GVj:DgemmaFill<CR>")
    filled = "def f(a):\n    c = a\n    return c\n\n\nf(1)\nx = 1"
    window.until(lambda: window.text() == filled, about="filled")
    window.keys("u")
    window.until(lambda: window.text() == TEXT + "x = 1", about="undone")
    window.keys("<C-r>")
    window.until(lambda: window.text() == filled, about="done again")
    window.save()
    assert (tmp_path / "a.py").read_bytes().decode() == (filled + "\n").replace("\n", end)


def test_what_is_typed_next_is_another_undo_step(scripted: Start, record: Record) -> None:
    window = scripted("x = 1\n", script={"fill": ["2"], "fill_delay_s": 0.3})
    window.keys("$v:DgemmaFill<CR>")
    window.until(lambda: record.params(FILL), about="asked")
    window.keys("A")
    window.until(lambda: window.line() == "x = 2")
    window.keys("3<Esc>u")
    window.until(lambda: window.line() == "x = 2", about="only what was typed is undone")
    window.keys("u")
    window.until(lambda: window.line() == "x = 1")


def test_user_chooses_among_several(scripted: Start, tmp_path: Path) -> None:
    window = scripted("x = 1\n", script={"fill": ["2", "3"]})
    window.lua("_G.choice = 2")
    window.keys("$v:DgemmaFill<CR>")
    window.until(lambda: window.line() == "x = 3")
    assert window.lua("return _G.chosen") == [["50 %  2", "50 %  3"]]
    window.save()
    assert (tmp_path / "a.py").read_text() == "x = 3\n"


@pytest.mark.parametrize("keys", ["<C-c>", ":DgemmaCancel<CR>"])
def test_cancelled_fill_changes_nothing(scripted: Start, record: Record, tmp_path: Path, keys: str) -> None:
    window = scripted(TEXT, script={"fill": ["never"], "fill_delay_s": 10})
    window.keys("2GV:DgemmaFill<CR>")
    window.until(lambda: record.params(FILL), about="asked")
    # The server may receive the request before Neovim has ended the command; until then CTRL-C interrupts the command.
    window.until(lambda: window.lua("return vim.fn.maparg('<C-c>', 'n')"), about="the key is taken")
    window.keys(keys)
    window.until(lambda: record.params("$/cancelRequest"), about="cancelled")
    window.until(lambda: window.lua("return vim.fn.maparg('<C-c>', 'n')") == "", about="the key is free again")
    window.lua("vim.wait(300)")
    window.save()
    assert (tmp_path / "a.py").read_text() == TEXT


def test_text_that_changed_meanwhile_is_not_touched(scripted: Start, record: Record, tmp_path: Path) -> None:
    window = scripted(TEXT, script={"fill": ["never"], "fill_delay_s": 1.5})
    window.keys("2GV:DgemmaFill<CR>")
    window.until(lambda: record.params(FILL), about="asked")
    window.keys("Gox = 1<Esc>")
    assert "nothing was put in: run it again" in window.hear("changed while")
    window.save()
    assert (tmp_path / "a.py").read_text() == TEXT + "x = 1\n"


@pytest.mark.parametrize(("option", "why"), [("readonly", "read-only"), ("nomodifiable", "cannot be changed")])
def test_fill_of_a_buffer_that_cannot_be_changed_is_refused(
    scripted: Start, record: Record, option: str, why: str
) -> None:
    window = scripted(TEXT, script={"fill": ["never"]})
    window.lua("vim.cmd('setlocal ' .. ...)", option)
    window.keys("2GV:DgemmaFill<CR>")
    window.hear(why)
    assert not record.params(FILL)
    assert window.text() + "\n" == TEXT


def test_offer_for_an_older_text_is_refused(scripted: Start, record: Record) -> None:
    window = scripted(TEXT, script={"fill": ["never"]})
    window.lua(
        """
        local uri, version = vim.uri_from_bufnr(0), vim.lsp.util.buf_versions[vim.api.nvim_get_current_buf()]
        local position = { line = 0, character = 0 }
        local range = { start = position, ["end"] = { line = 1, character = 0 } }
        local argument = { textDocument = { uri = uri, version = version }, range = range, kind = "selection" }
        vim.api.nvim_buf_set_lines(0, 0, 0, false, { "# new" })
        local client = vim.lsp.get_clients({ bufnr = 0 })[1]
        client:exec_cmd({ title = "Fill selection", command = "dgemma.fill", arguments = { argument } }, { bufnr = 0 })
        """
    )
    window.hear("changed since the fill was offered")
    assert not record.params(FILL)


def test_server_that_dies_in_mid_fill_leaves_the_file_and_frees_the_key(
    scripted: Start, record: Record, tmp_path: Path
) -> None:
    window = scripted(TEXT, script={"fill": ["never"], "fill_delay_s": 10})
    window.keys("2GV:DgemmaFill<CR>")
    window.until(lambda: record.params(FILL), about="asked")
    window.lua("vim.lsp.get_clients({ bufnr = 0 })[1].rpc.terminate()")
    window.until(lambda: window.lua("return vim.fn.maparg('<C-c>', 'n')") == "", about="the key is free again")
    window.save()
    assert (tmp_path / "a.py").read_text() == TEXT
