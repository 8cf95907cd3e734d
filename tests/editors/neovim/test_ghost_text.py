"""Ghost text of the real server and engine in a real Neovim: it is the server's answer and is inserted correctly."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.editors.conftest import engines
from tests.editors.neovim.conftest import Start
from tests.editors.neovim.window import Window

AREA = (
    "width = 3\nheight = 4\n\n\ndef area(width, height):\n    return width * height\n\n\nprint(area(width, height))\n"
)

ASK = """
local client = vim.lsp.get_clients({ bufnr = 0 })[1]
local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
params.context = { triggerKind = 2 }
local answer = client:request_sync("textDocument/inlineCompletion", params, 10000, 0)
return vim.tbl_map(function(item) return { item.insertText, item.range.start.character } end, answer.result)
"""


def server_says(window: Window) -> str:
    """Returns the server's answer at the cursor, without the text left of the cursor."""
    [[text, column]] = window.lua(ASK)
    return text.encode()[window.lua("return vim.api.nvim_win_get_cursor(0)[2]") - column :].decode()


def test_ghost_text_while_typing_is_the_servers_answer(start: Start, tmp_path: Path) -> None:
    window = start(AREA)
    window.keys("Go")
    window.type("print(area(", keys_per_s=8)
    assert window.see_ghost() == "width, height))" == server_says(window)
    window.keys("<Tab>")
    window.until(lambda: window.line() == "print(area(width, height))")
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + "print(area(width, height))\n"


def test_rest_of_the_ghost_text_stays_while_it_is_typed(start: Start, tmp_path: Path) -> None:
    window = start(AREA)
    window.keys("Goprint(area(")
    window.see_ghost("width, height))")
    for typed, rest in (("w", "idth, height))"), ("i", "dth, height))"), ("d", "th, height))")):
        window.keys(typed)
        window.see_ghost(rest)
    window.keys("<Tab>")
    window.until(lambda: window.line() == "print(area(width, height))")
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + "print(area(width, height))\n"


def test_undo_removes_the_accepted_text_and_no_more(start: Start, tmp_path: Path) -> None:
    window = start(AREA)
    window.keys("Goprint(area(")
    window.see_ghost()
    window.keys("<Tab>")
    window.until(lambda: window.line() == "print(area(width, height))")
    window.keys("<Esc>u")
    window.until(lambda: window.line() == "print(area(")
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + "print(area(\n"


def test_ghost_text_after_astral_characters_is_inserted_correctly(start: Start, tmp_path: Path) -> None:
    window = start(AREA)
    window.keys("Goprint('😋e\u0301', area(")
    ghost = window.see_ghost()
    assert ghost.startswith("width, height)")
    assert ghost == server_says(window)
    window.keys("<Tab>")
    window.until(lambda: window.line() == "print('😋e\u0301', area(" + ghost)
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + "print('😋e\u0301', area(" + ghost + "\n"


def test_tabs_stay_tabs(start: Start, tmp_path: Path) -> None:
    text = "class A:\n\tdef size(self):\n\t\tself.width = 3\n\t\tself.height = 4\n\t\treturn self.width * self.height\n"
    window = start(text)
    window.lua("vim.o.expandtab = false; vim.bo.expandtab = false; vim.bo.autoindent = true; vim.bo.indentexpr = ''")
    window.keys("Go<C-u>\tdef again(self):<CR><C-u>\t\treturn self.width")
    ghost = window.see_ghost()
    assert ghost.startswith(" * self.height")
    window.keys("<Tab>")
    window.until(lambda: "self.width * self.height" in window.text().rpartition("again")[2])
    window.save()
    written = (tmp_path / "a.py").read_text()
    assert written == text + "\tdef again(self):\n\t\treturn self.width" + ghost + "\n"
    assert "    " not in written


def test_file_with_crlf_keeps_its_line_ends(start: Start, tmp_path: Path) -> None:
    window = start(AREA.replace("\n", "\r\n").encode())
    assert window.lua("return vim.bo.fileformat") == "dos"
    window.keys("Goprint(area(")
    window.see_ghost("width, height))")
    window.keys("<Tab>")
    window.until(lambda: window.line() == "print(area(width, height))")
    window.save()
    expected = AREA + "print(area(width, height))\n"
    assert (tmp_path / "a.py").read_bytes() == expected.replace("\n", "\r\n").encode()


def test_two_documents_each_get_their_own_ghost_text(start: Start, tmp_path: Path) -> None:
    other = AREA.replace("area", "volume").replace("width", "depth")
    (tmp_path / "b.py").write_text(other)
    window = start(AREA)
    window.keys("Goprint(area(")
    window.see_ghost("width, height))")
    window.keys("<Tab>")
    window.save()
    window.open(tmp_path / "b.py")
    window.keys("Goprint(volume(")
    window.see_ghost("depth, height))")
    window.keys("<Tab>")
    window.until(lambda: window.line() == "print(volume(depth, height))")
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + "print(area(width, height))\n"
    assert (tmp_path / "b.py").read_text() == other + "print(volume(depth, height))\n"


def test_two_neovims_share_one_engine(start: Start, runtime: Path, tmp_path: Path) -> None:
    windows = [start(AREA, name="a.py"), start(AREA, name="b.py")]
    for window in windows:
        window.keys("Goprint(area(")
    for window in windows:
        window.see_ghost("width, height))")
        window.keys("<Tab>")
        window.until(lambda window=window: window.line() == "print(area(width, height))")
        window.save()
    assert len(engines(runtime)) == 1
    for name in ("a.py", "b.py"):
        assert (tmp_path / name).read_text() == AREA + "print(area(width, height))\n"


def test_engine_that_is_killed_comes_back(start: Start, tmp_path: Path) -> None:
    own = tmp_path / "r"
    window = start(AREA, environment={"DGEMMA_RUNTIME_DIR": str(own)})
    window.keys("Goprint(area(")
    window.see_ghost("width, height))")
    try:
        (engine,) = engines(own)
        psutil.Process(engine.pid).kill()
        window.keys("<Esc>")
        window.until(lambda: window.lua("return require('dgemma').status()") != "dgemma ready", about="its end is seen")
        window.keys("cc'é'; print(area(")
        window.see_ghost("width, height))")
        assert window.lua("return require('dgemma').status()") == "dgemma ready"
        assert [each.pid for each in engines(own)] != [engine.pid]
    finally:
        for each in engines(own):
            each.kill()
    window.save()
    assert (tmp_path / "a.py").read_text() == AREA + "'é'; print(area(\n"
