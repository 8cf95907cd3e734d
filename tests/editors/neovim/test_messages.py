"""Messages fit on one line of the screen, so that Neovim does not wait for ENTER; `:messages` keeps the whole text."""

from __future__ import annotations

import pytest

from tests.editors.neovim.conftest import Start

LONG = "the running engine is of an older version; close the other windows that use it, or end it: dgemma-engine stop"
WIDE = "\N{CJK UNIFIED IDEOGRAPH-6A21}" * 60
MESSAGES = "return vim.api.nvim_exec2('messages', { output = true }).output"
FROM_SERVER = """
local client = vim.lsp.get_clients()[1]
client.handlers["window/showMessage"](nil, { type = 1, message = "dgemma: " .. ... }, { client_id = client.id })
"""


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("message", [LONG, WIDE, "two\nlines"], ids=["long", "wide", "lines"])
@pytest.mark.parametrize("way", ["say.info", "say.warn", "say.error", "server"])
def test_long_message_waits_for_no_key_and_is_kept(scripted: Start, columns: int, message: str, way: str) -> None:
    window = scripted("x = \n", script={})
    window.look(columns, 24)
    window.lua("vim.notify = _G.built_in_notify")
    before = window.lua("return vim.o.messagesopt")
    window.lua(FROM_SERVER if way == "server" else f"require('dgemma.{way.replace('.', chr(39) + ').')}(...)", message)
    last = window.until(lambda: next((line for line in window.screen() if ":messages" in line), None))
    assert last.startswith("dgemma: ")
    assert not window.is_asking()
    assert window.lua("return vim.o.messagesopt") == before
    kept = window.lua(MESSAGES)
    assert f"dgemma: {message}" in kept
    assert kept.count(":messages") == 0
    window.keys("Ay")
    window.until(lambda: window.line() == "x = y")


def test_short_message_is_shown_unchanged(scripted: Start) -> None:
    window = scripted("x = \n", script={})
    window.look(80, 24)
    window.lua("vim.notify = _G.built_in_notify; require('dgemma.say').info('all is well')")
    window.until(lambda: "dgemma: all is well" in window.screen())
    assert not window.is_asking()


def test_replaced_notify_gets_the_whole_text(scripted: Start) -> None:
    window = scripted("x = \n", script={})
    window.look(40, 24)
    window.lua("require('dgemma.say').info(...)", LONG)
    assert window.hear(LONG) == f"dgemma: {LONG}"
