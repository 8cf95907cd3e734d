"""The picture of a trace: a piece is cut out of a file of the demo, and `tiny` fills the gap, traced.

Prints the text that was cut and the one that was found, to check the picture by. Needs Chromium and the extra `dev`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tests.get_chromium import get_chromium  # noqa: E402  (the driver of the tests is no package)

SOURCE = ROOT / "dgemma_lsp/commands/demo_files/server.go"
BEFORE, CUT = "os.ReadFile(path)\n\tif err != nil {\n\t\t", "return nil, err"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
FRAME = 2
WIDTH = 1_120
SCALE = 1.0


def page_in(folder: Path) -> Path:
    """Returns the page for the file without the piece."""
    text = SOURCE.read_text(encoding="utf-8")
    offset = text.index(BEFORE + CUT) + len(BEFORE)
    file, page = folder / SOURCE.name, folder / "trace.html"
    file.write_text(text[:offset] + text[offset + len(CUT) :], encoding="utf-8")
    line, column = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
    # The first request after a start takes longer.
    for _ in range(3):
        command = [sys.executable, "-m", "dgemma_lsp", "trace", f"{file}:{line}:{column}", "--html", str(page)]
        subprocess.run([*command, "--model", "tiny"], check=True)
    return page


def main() -> int:
    from playwright.sync_api import FloatRect, sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/trace.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder, sync_playwright() as playwright:
        address = page_in(Path(folder)).as_uri() + f"#{FRAME}"
        browser = playwright.chromium.launch(executable_path=get_chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=SCALE)
        page.goto(address)
        found = page.locator("#candidates code").first.inner_text()
        print(f"cut: {CUT!r}; found: {found!r}; {page.locator('#summary').inner_text()}")
        box = page.locator(".halves").bounding_box()
        assert box is not None
        clip: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 12}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=arguments.out, full_page=True, clip=clip)
        browser.close()
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
    return 0 if found == CUT else 1


if __name__ == "__main__":
    sys.exit(main())
