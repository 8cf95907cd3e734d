"""How long a Neovim user waits for ghost text: a key is typed at 100 places of real files, until the text is drawn.

A real Neovim with the plugin, the real server and engine. Each place is a line of a file of the standard library, cut
in its middle; its last key is typed. The clock runs inside Neovim, from the key until it draws the ghost text; places
without an answer are counted and left out. Neovim itself waits 200 ms after the last key before it asks.
Needs the extra `editors`, and Neovim as `make test-editors` installs it.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from own_engines import end_engines

from tests.editors.get_neovim import install
from tests.editors.neovim.window import Window

ROOT = Path(__file__).parents[3]
MODULES = ("textwrap.py", "heapq.py", "shlex.py", "queue.py", "csv.py", "fractions.py", "tarfile.py", "json/decoder.py")
STATEMENT = re.compile(r"    +(?:self\.|return |if |for |while |raise |\w+ = )[^#'\"]{14,}")
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


def places(folder: Path) -> Iterator[tuple[list[str], int, str]]:
    """Yields texts with a line cut in its middle, that line's number from 1, and the key that was cut off last.

    One file after the other, as a person works; then all of them again with other lines, until no line is left.
    """
    left: dict[str, list[tuple[int, int]]] = {}
    texts = {module: (folder / module).read_text(encoding="utf-8").splitlines() for module in MODULES}
    for module, lines in texts.items():
        middles = [(row, len(line) - len(line.lstrip()) + len(line.strip()) // 2) for row, line in enumerate(lines)]
        left[module] = [
            (row, cut) for row, cut in middles if STATEMENT.fullmatch(lines[row]) and KEY.fullmatch(lines[row][cut])
        ]
        random.Random(0).shuffle(left[module])
    while any(left.values()):
        for module, lines in texts.items():
            for row, cut in left[module][:PLACES_PER_VISIT]:
                yield [*lines[:row], lines[row][:cut], *lines[row + 1 :]], row + 1, lines[row][cut]
            del left[module][:PLACES_PER_VISIT]


def wait(window: Window, lines: list[str], row: int, key: str) -> dict[str, Any]:
    """Types a key at a place and returns the clock when the ghost text is drawn, or the server's answer is empty."""
    window.lua(PLACE, lines, row)
    window.keys("A" + key)
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        clock = window.lua("return _G.clock") or {}
        if clock.get("seen") or clock.get("answered"):
            return clock
        time.sleep(0.01)
    raise SystemExit(f"no answer in 10 s at line {row}: {lines[row - 1]!r}")


def measure(num_shown: int, folder: Path) -> dict[str, Any]:
    """Goes through places until that many completions were shown."""
    program = install(ROOT / ".editors/neovim")
    environment = os.environ | {"DGEMMA_RUNTIME_DIR": str(folder / "r"), "OMP_NUM_THREADS": "1"}
    (folder / "a.py").write_text("import os\nprint(os.\n", encoding="utf-8")
    key_ms: list[float] = []
    asked_ms: list[float] = []
    num_places = 0
    options = {"cmd": [sys.executable, "-m", "dgemma_lsp"]}
    with Window(program, folder / "nvim", environment, options, [folder / "a.py"]) as window:
        window.attached()
        window.lua("vim.bo.indentexpr, vim.bo.autoindent = '', false")
        window.lua(CLOCK)
        window.keys("GA")
        ready = "return require('dgemma').status() == 'dgemma ready'"
        window.until(lambda: window.lua(ready), timeout_s=ENGINE_LOADS_S, about="the engine is ready")
        for lines, row, key in places(Path(sysconfig.get_path("stdlib"))):
            clock = wait(window, lines, row, key)
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
        "p50_ms": round(statistics.median(key_ms), 1),
        "p95_ms": round(record.quantile(key_ms, 0.95), 1),
        "asked_p50_ms": round(statistics.median(asked_ms), 1),
        "asked_p95_ms": round(record.quantile(asked_ms, 0.95), 1),
        "neovim_waits_ms": NEOVIM_WAITS_MS,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--completions", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b-") as name:
        try:
            result = measure(args.completions, Path(name))
        finally:
            end_engines(name)
    record.write("editor_neovim", result, args.out)


if __name__ == "__main__":
    main()
