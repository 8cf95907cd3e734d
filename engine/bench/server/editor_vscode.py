"""How long a VS Code user waits for ghost text: a key is typed at places of real files, until 100 texts were drawn.

A real VS Code (code-server in Chromium) with the extension, the real server and engine. Each place is a line of a file
of the standard library, cut in its middle; the first key of what was cut off is typed. The clock runs inside the page,
from the key until the ghost text is in it; places without an answer are counted and left out.
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
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "editors/vscode/scripts")]

from build_vsix import build  # noqa: E402  (the driver of the tests, and the extension's scripts, are no packages)

from tests.editors.get_vscode import CODE_SERVER, install  # noqa: E402
from tests.editors.vscode.code_server import CHROMIUM_FLAGS, install_extension, serving  # noqa: E402
from tests.editors.vscode.window import GHOST, Window  # noqa: E402
from tests.get_chromium import get_chromium  # noqa: E402

KEY = re.compile(r"[\w.]")
PLACES_PER_VISIT = 10
ENGINE_LOADS_S = 60
LONGEST_S = 6.0
# Time without a message of the server that ends a place: the server itself waits for further keys.
QUIET_S = 0.6

CLOCK = f"""() => {{
  window.clock = {{}};
  addEventListener('keydown', () => {{ window.clock = {{ key: performance.now() }}; }}, true);
  new MutationObserver(() => {{
    if (window.clock.key && !window.clock.seen && ({GHOST})()) window.clock.seen = performance.now();
  }}).observe(document.body, {{ childList: true, subtree: true, characterData: true }});
}}"""
WAITED = "() => window.clock.seen && window.clock.seen - window.clock.key"


def wait_ms(window: Window, log: Path, place: CutLine) -> float | None:
    """Cuts a line, types a key, and returns the milliseconds until ghost text is drawn; None where there is none.

    Args:
        window: with the file open.
        log: what the server has written so far.
        place: the line that is cut, and the key that is typed.
    """
    window.go_to(place.row + 1, place.cut + 1)
    window.press("Shift+End", "Delete")
    window.page.wait_for_timeout(150)
    window.type(place.key)
    end_s = time.monotonic() + LONGEST_S
    said, quiet_since_s = log.stat().st_size, time.monotonic()
    waited: float | None = None
    while waited is None and time.monotonic() < end_s:
        window.page.wait_for_timeout(20)
        waited = window.page.evaluate(WAITED)
        if log.stat().st_size != said or _is_busy(log):
            said, quiet_since_s = log.stat().st_size, time.monotonic()
        elif time.monotonic() - quiet_since_s > QUIET_S:
            break
    window.press("Escape", "Control+Z", "Control+Z")
    return waited


def _is_busy(log: Path) -> bool:
    said = log.read_bytes()
    return said.rfind(b'"kind": "busy"') > said.rfind(b'"kind": "ready"')


def measure(num_shown: int, folder: Path, model: str) -> dict[str, Any]:
    """Goes through places until that many completions were shown.

    Args:
        num_shown: the number.
        folder: an empty one, for everything that is written.
        model: `engine.model`.
    """
    install()
    environ = os.environ | {"DGEMMA_RUNTIME_DIR": str(folder / "r"), "XDG_STATE_HOME": str(folder / "s")}
    environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "engine")))}
    home, workspace, log = folder / "home", folder / "ws", folder / "said"
    for new in (home, workspace, folder / "r"):
        new.mkdir()
    program = folder / "server"
    program.write_text(f"#!/bin/sh\n'{sys.executable}' -m dgemma_lsp | tee '{log}'\n", encoding="utf-8")
    program.chmod(0o755)
    install_extension(home, build(folder), environ)
    shown_ms: list[float] = []
    num_places = 0
    (workspace / "open.py").write_text("import os\nprint(os.", encoding="utf-8")
    with serving(home, environ) as server, sync_playwright() as playwright:
        server.machine_settings({"dgemma.server.path": str(program), "dgemma.engine.model": model})
        browser = playwright.chromium.launch(executable_path=get_chromium(), args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": 1100, "height": 640})
        window = Window(page, server.url(workspace, workspace / "open.py"))
        window.wait_status("the first request starts the engine", timeout_ms=ENGINE_LOADS_S * 1_000)
        window.open(workspace / "open.py")
        window.press("Control+End")
        window.type("p")
        window.wait_status("^sparkle", timeout_ms=ENGINE_LOADS_S * 1_000)
        page.evaluate(CLOCK)
        for number, (text, places) in enumerate(visits(KEY, PLACES_PER_VISIT)):
            path = workspace / f"visit_{number}.py"
            path.write_text(text, encoding="utf-8")
            window.open(path)
            for place in places:
                waited = wait_ms(window, log, place)
                num_places += 1
                shown_ms += [] if waited is None else [waited]
            if len(shown_ms) >= num_shown:
                break
        browser.close()
    kept = shown_ms[:num_shown]
    return {
        "code_server": CODE_SERVER,
        "places": num_places,
        "completions": len(kept),
        **record.spread(kept, digits=1),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--completions", type=int, default=100)
    parser.add_argument("--model", choices=("tiny", "small", "coder"), default="small", help="default: small")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as name:
        try:
            # The editor has a home of its own, where no model was fetched.
            model = TINY if args.model == TINY else str(model_folder(args.model))
            result = {"model": args.model, **measure(args.completions, Path(name), model)}
        finally:
            end_engines(name)
    record.write("editor_vscode", result, args.out)


if __name__ == "__main__":
    main()
