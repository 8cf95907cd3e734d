"""How long a Neovim user waits for ghost text: a key is typed at 100 places of real files, until the text is drawn.

A real Neovim with the plugin, the real server and engine. Each place is a line of a file of the standard library, cut
in its middle; its last key is typed. The clock runs inside Neovim, from the key until it draws the ghost text; places
without an answer are counted and left out. Neovim itself waits 200 ms after the last key before it asks.
Needs the extra `editors`, and Neovim as `make test-editors` installs it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.model_store.catalogue import TINY
from library_places import CutLine, visits
from own_engines import end_engines

from tests.editors.get_neovim import install
from tests.editors.neovim.window import Window

ROOT = Path(__file__).parents[3]
KEY = re.compile(r"[\w.(= ]")
NEOVIM_WAITS_MS = 200
PLACES_PER_VISIT = 20
ENGINE_LOADS_S = 60

CLOCK = """
local namespace = vim.api.nvim_create_namespace("nvim.lsp.inline_completion")
_G.clock = {}
vim.on_key(function(_, typed)
  if typed ~= "" then _G.clock = { key = vim.uv.hrtime() } end
end)
vim.api.nvim_create_autocmd("LspRequest", {
  callback = function(event)
    local request = event.data.request
    if request.method ~= "textDocument/inlineCompletion" or _G.clock.seen then return end
    if request.type == "pending" then
      _G.clock.asked, _G.clock.answered = vim.uv.hrtime(), nil
    elseif request.type == "complete" then
      -- What is drawn is drawn before this.
      vim.defer_fn(function() _G.clock.answered = true end, 20)
    end
  end,
})
local draw = vim.api.nvim_buf_set_extmark
vim.api.nvim_buf_set_extmark = function(buffer, space, ...)
  if space == namespace and _G.clock.asked and not _G.clock.seen then _G.clock.seen = vim.uv.hrtime() end
  return draw(buffer, space, ...)
end
"""

PLACE = """
local lines, row = ...
vim.cmd.stopinsert()
vim.api.nvim_buf_set_lines(0, 0, -1, false, lines)
vim.api.nvim_win_set_cursor(0, { row, 0 })
"""


def wait(window: Window, text: str, place: CutLine) -> dict[str, Any]:
    """Types a key at a place and returns the clock when the ghost text is drawn, or the server's answer is empty."""
    lines = text.splitlines()
    lines[place.row] = lines[place.row][: place.cut]
    window.lua(PLACE, lines, place.row + 1)
    window.keys("A" + place.key)
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        clock = window.lua("return _G.clock") or {}
        if clock.get("seen") or clock.get("answered"):
            return clock
        time.sleep(0.01)
    raise SystemExit(f"no answer in 10 s at line {place.row + 1}: {lines[place.row]!r}")


def measure(num_shown: int, folder: Path, model: str) -> dict[str, Any]:
    """Goes through places until that many completions were shown.

    Args:
        num_shown: the number.
        folder: an empty one, for everything that is written.
        model: `engine.model`.
    """
    program = install(ROOT / ".editors/neovim")
    environment = os.environ | {"DGEMMA_RUNTIME_DIR": str(folder / "r"), "OMP_NUM_THREADS": "1"}
    (folder / "a.py").write_text("import os\nprint(os.\n", encoding="utf-8")
    key_ms: list[float] = []
    asked_ms: list[float] = []
    num_places = 0
    options = {"cmd": [sys.executable, "-m", "dgemma_lsp"], "settings": {"engine": {"model": model}}}
    with Window(program, folder / "nvim", environment, options, [folder / "a.py"]) as window:
        window.attached()
        window.lua("vim.bo.indentexpr, vim.bo.autoindent = '', false")
        window.lua(CLOCK)
        window.keys("GA")
        ready = "return require('dgemma').status() == 'dgemma ready'"
        window.until(lambda: window.lua(ready), timeout_s=ENGINE_LOADS_S, about="the engine is ready")
        for text, place in ((text, place) for text, some in visits(KEY, PLACES_PER_VISIT) for place in some):
            clock = wait(window, text, place)
            num_places += 1
            if seen := clock.get("seen"):
                key_ms.append((seen - clock["key"]) / 1e6)
                asked_ms.append((seen - clock["asked"]) / 1e6)
            if len(key_ms) == num_shown:
                break
        version = window.lua("return tostring(vim.version())")
    return {
        "neovim": version,
        "places": num_places,
        "completions": len(key_ms),
        **record.spread(key_ms, digits=1),
        **record.spread(asked_ms, prefix="asked_", digits=1),
        "neovim_waits_ms": NEOVIM_WAITS_MS,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--completions", type=int, default=100)
    parser.add_argument("--model", choices=("tiny", "small", "coder"), default="small", help="default: small")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b-") as name:
        try:
            # The editor has a home of its own, where no model was fetched.
            model = TINY if args.model == TINY else str(model_folder(args.model))
            result = {"model": args.model, **measure(args.completions, Path(name), model)}
        finally:
            end_engines(name)
    record.write("editor_neovim", result, args.out)


if __name__ == "__main__":
    main()
