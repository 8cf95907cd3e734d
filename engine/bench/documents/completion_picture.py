"""The picture of a completion in the README: VS Code, the model `small`, a method that is typed up to its first word.

Writes the picture only where the ghost text is `RIGHT` and came within a second: the engine has answered once before,
at another place, since its start is no part of a completion. Needs `make test-editors` once, which installs the editor,
and `dgemma-engine pull small`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "editors/vscode/scripts")]

from build_vsix import build  # noqa: E402  (the folders of scripts and tests are no packages)
from dgemma_engine.checkpoint.builtin import model_folder  # noqa: E402

from tests.editors.conftest import engines  # noqa: E402
from tests.editors.get_vscode import install  # noqa: E402
from tests.editors.vscode.code_server import CHROMIUM_FLAGS, install_extension, serving  # noqa: E402
from tests.editors.vscode.window import Window  # noqa: E402
from tests.get_chromium import get_chromium  # noqa: E402

ABOVE = """\
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    x: float
    y: float

    def moved(self, dx: float, dy: float) -> "Point":
        return Point(self.x + dx, self.y + dy)

    def scaled(self, factor: float) -> "Point":
        """
TYPED, RIGHT = "return ", "Point(self.x * factor, self.y * factor)"
BELOW = """

    def distance_to(self, other: "Point") -> float:
        return math.hypot(self.x - other.x, self.y - other.y)
"""
WIDTH, HEIGHT = 900, 480
_LOADS_MS, _ANSWERS_MS, _TRIES = 120_000, 15_000, 5
# What the status shows of an answer, and of one within a second.
_ANSWERED, _QUICK = r"dgemma \d+ ms", r"dgemma \d{1,3} ms"


def main() -> int:
    """Takes the picture; returns 1 where another text was offered."""
    from playwright.sync_api import TimeoutError, sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/completion.png")
    arguments = parser.parse_args()
    install()
    with (
        tempfile.TemporaryDirectory(prefix="e-") as runtime,
        tempfile.TemporaryDirectory(prefix="vscode-", ignore_cleanup_errors=True) as home,
        tempfile.TemporaryDirectory(prefix="ws-") as workspace,
        sync_playwright() as playwright,
    ):
        packages = os.pathsep.join(str(ROOT / part) for part in (".", "engine", "kernels"))
        environ = os.environ | {"PYTHONPATH": packages, "DGEMMA_RUNTIME_DIR": runtime}
        install_extension(Path(home), build(ROOT / ".editors/vsix"), environ)
        # The editor has data folders of its own.
        models = Path(home) / "data/dgemma-lsp/models"
        models.mkdir(parents=True)
        (models / "small").symlink_to(model_folder("small").parent)
        path = Path(workspace) / "point.py"
        path.write_text(ABOVE + BELOW, encoding="utf-8")
        with serving(Path(home), environ) as server:
            server.machine_settings({"dgemma.server.python": sys.executable, "dgemma.engine.model": "small"})
            flags = list(CHROMIUM_FLAGS)
            browser = playwright.chromium.launch(executable_path=get_chromium(), args=flags)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            window = Window(page, server.url(Path(workspace), path))
            window.wait_status("the first request starts the engine|Ready", timeout_ms=_LOADS_MS)
            window.open(path)
            window.press("Control+B")
            window.go_to((ABOVE + BELOW).count("\n"), 1_000)
            window.type(" + ", delay_ms=40)
            window.wait_status(_ANSWERED, timeout_ms=_LOADS_MS)
            window.press(*["Backspace"] * len(" + "))
            line = ABOVE.count("\n") + 1
            for _ in range(_TRIES):
                window.go_to(line, len(ABOVE.rpartition("\n")[2]) + 1)
                window.type(TYPED, delay_ms=40)
                try:
                    found = window.wait_ghost(timeout_ms=_ANSWERS_MS)
                    break
                except TimeoutError:
                    window.press(*["Backspace"] * len(TYPED))
            else:
                found = ""
            print(f"offered: {found!r}")
            if found == RIGHT:
                window.wait_status(_QUICK, timeout_ms=_ANSWERS_MS)
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=arguments.out, animations="disabled")
            browser.close()
        for process in engines(Path(runtime)):
            process.kill()
    return 0 if found == RIGHT else 1


if __name__ == "__main__":
    sys.exit(main())
