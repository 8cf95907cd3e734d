"""A real Neovim without a screen, with the plugin, driven as a user does: keys in, ghost text out.

Every call into Neovim is limited in time: one that waits at a prompt would hang the tests.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import psutil

ROOT = Path(__file__).parents[3]
PLUGIN = ROOT / "editors/neovim"
CALL_S = 20

INIT = """
vim.opt.runtimepath:prepend(vim.env.DGEMMA_PLUGIN)
vim.o.swapfile = false
_G.said = {}
_G.built_in_notify = vim.notify
_G.chosen = {}
vim.notify = function(message) table.insert(_G.said, message) end
vim.ui.select = function(items, options, on_choice)
  local shown = vim.tbl_map(options.format_item, items)
  table.insert(_G.chosen, shown)
  on_choice(items[_G.choice or 1], _G.choice or 1)
end
require("dgemma").setup(vim.json.decode(vim.env.DGEMMA_OPTIONS))
"""

GHOST = """
local namespace = vim.api.nvim_create_namespace("nvim.lsp.inline_completion")
local function text(chunks)
  return table.concat(vim.tbl_map(function(chunk) return chunk[1] end, chunks))
end
local mark = vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true })[1]
if not mark then return vim.NIL end
local lines = { text(mark[4].virt_text or {}) }
for _, line in ipairs(mark[4].virt_lines or {}) do table.insert(lines, text(line)) end
return table.concat(lines, "\\n")
"""

SCREEN = """
local lines = {}
for row = 1, vim.o.lines do
  local cells = {}
  for column = 1, vim.o.columns do table.insert(cells, vim.fn.screenstring(row, column)) end
  table.insert(lines, (table.concat(cells):gsub("%s+$", "")))
end
return lines
"""

ATTACHED = """
local group = "nvim.lsp.inline_completion:" .. vim.api.nvim_get_current_buf()
return pcall(vim.api.nvim_get_autocmds, { group = group })
"""


class Window:
    """One Neovim.

    Args:
        program: the editor.
        folder: its configuration, state and data live there.
        environment: of the editor and of the servers that it starts.
        options: what `setup` is given.
        files: opened from the start.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        environment: Mapping[str, str],
        options: Mapping[str, Any],
        files: Sequence[Path] = (),
    ) -> None:
        import pynvim  # here, so that the file can be read where the extra `editors` is not installed

        folder.mkdir(parents=True, exist_ok=True)
        init = folder / "init.lua"
        init.write_text(INIT, encoding="utf-8")
        own = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
        added = {
            "DGEMMA_PLUGIN": str(PLUGIN),
            # The embedded model, unless a test names another.
            "DGEMMA_OPTIONS": json.dumps(
                {**options, "settings": {"engine": {"model": "tiny"}} | options.get("settings", {})}
            ),
            "NVIM_LOG_FILE": str(folder / "log"),
        }
        command = [str(program), "--embed", "--headless", "--clean", "-n"]
        command += ["--cmd", "let g:loaded_python3_provider=0", "-u", str(init), *map(str, files)]
        # pynvim starts the editor with this process's environment.
        with patch.dict(os.environ, {**environment, **own, **added}, clear=True):
            self._nvim = pynvim.attach("child", argv=command)
        self.pid = int(self.lua("vim.o.columns, vim.o.lines = 120, 40; return vim.fn.getpid()"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _limited(self, call: Callable[[], Any]) -> Any:
        timer = threading.Timer(CALL_S, self._kill)
        timer.start()
        try:
            return call()
        finally:
            timer.cancel()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def lua(self, code: str, *arguments: Any) -> Any:
        """Runs Lua and returns what it returns."""
        return self._limited(lambda: self._nvim.exec_lua(code, *arguments))

    def keys(self, keys: str) -> None:
        """Types keys in Vim's notation, all at once."""
        self._limited(lambda: self._nvim.input(keys))

    def type(self, text: str, *, keys_per_s: float = 8) -> None:
        """Types a text as a person does."""
        for character in text:
            self.keys({"<": "<lt>", "\n": "<CR>"}.get(character, character))
            time.sleep(1 / keys_per_s)

    def until(self, what: Callable[[], Any], *, timeout_s: float = 20, about: str = "") -> Any:
        """Waits until `what` returns a true value, and returns that value."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if value := what():
                return value
            time.sleep(0.02)
        raise AssertionError(f"not within {timeout_s} s: {about or what}; said: {self.said()}, buffer: {self.text()!r}")

    def open(self, path: Path) -> None:
        """Edits a file and waits until its server is attached."""
        self.lua("vim.cmd.edit(...)", str(path))
        self.attached()

    def attached(self) -> None:
        """Waits until a server is attached to the current buffer."""

        def seen() -> bool:
            ended = [each for each in self.said() if "quit with exit code" in each]
            assert not ended, ended
            return self.lua(ATTACHED)

        self.until(seen, about="a server is attached")

    def ghost(self) -> str | None:
        """Returns the ghost text on the screen."""
        return self.lua(GHOST)

    def see_ghost(self, wanted: str | None = None) -> str:
        """Waits for ghost text; for `wanted`, if it is given."""
        about = f"ghost text {wanted!r}" if wanted else "ghost text"

        def seen() -> str | None:
            ghost = self.ghost()
            return ghost if ghost and wanted in (None, ghost) else None

        return self.until(seen, about=about)

    def no_ghost(self) -> None:
        """Waits until no ghost text is shown."""
        self.until(lambda: self.ghost() is None, about="no ghost text")

    def look(self, columns: int, lines: int) -> None:
        """Gives the editor a screen: without one it never waits for ENTER."""
        self._limited(lambda: self._nvim.ui_attach(columns, lines, rgb=True))

    def screen(self) -> list[str]:
        """Returns the lines of the screen."""
        return self.lua(SCREEN)

    def is_asking(self) -> bool:
        """Whether the editor waits for an answer, such as ENTER."""
        return self._limited(lambda: self._nvim.api.get_mode())["blocking"]

    def text(self) -> str:
        """Returns the current buffer's text, with `\\n` line ends and without the last."""
        return "\n".join(self.lua("return vim.api.nvim_buf_get_lines(0, 0, -1, false)"))

    def line(self) -> str:
        """Returns the cursor's line."""
        return self.lua("return vim.api.nvim_get_current_line()")

    def said(self) -> list[str]:
        """Returns every notification so far."""
        return list(self.lua("return _G.said"))

    def hear(self, part: str) -> str:
        """Waits for a notification that contains `part`, and returns it."""
        return self.until(lambda: next((each for each in self.said() if part in each), None), about=f"said: {part}")

    def save(self) -> None:
        """Leaves insert mode and writes the file."""
        self.keys("<Esc>")
        self.until(lambda: self.lua("return vim.api.nvim_get_mode().mode") == "n", about="normal mode")
        self.lua("vim.cmd.write()")

    def close(self) -> None:
        """Ends the editor and its servers."""
        try:
            self.lua("for _, each in ipairs(vim.lsp.get_clients()) do each:stop() end")
            self.until(lambda: not self.lua("return #vim.lsp.get_clients() > 0"), timeout_s=5)
            self._limited(lambda: self._nvim.command("qa!", async_=True))
            psutil.Process(self.pid).wait(5)
        except (AssertionError, OSError, EOFError, psutil.Error):
            self._kill()
        finally:
            self._nvim.close()
