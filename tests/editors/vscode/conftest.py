"""One code-server, one browser and one engine for all tests of the VS Code extension."""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, TimeoutError, sync_playwright

from tests.editors.get_vscode import install
from tests.editors.vscode.code_server import CHROMIUM_FLAGS, CodeServer, install_extension, serving
from tests.editors.vscode.documents import AREA, REST, TYPED
from tests.editors.vscode.window import Window

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "editors/vscode/scripts"))

from build_vsix import build  # noqa: E402  (the folder of the extension's scripts is no package)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Saves a screenshot of the window of a test that failed."""
    report = yield
    window = getattr(item, "funcargs", {}).get("window")
    if report.failed and call.when == "call" and isinstance(window, Window):
        window.shot(f"failed-{item.name}")
    return report


@pytest.fixture(scope="session")
def vsix() -> Path:
    """The extension as it would be installed, built from this checkout."""
    return build(ROOT / ".editors/vsix")


@pytest.fixture(scope="session")
def home(vsix: Path, editor_environment: dict[str, str]) -> Iterator[Path]:
    """The folders of a code-server that has the extension."""
    install()
    folder = Path(tempfile.mkdtemp(prefix="vscode-"))
    install_extension(folder, vsix, editor_environment)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def code_server(home: Path, editor_environment: dict[str, str]) -> Iterator[CodeServer]:
    """A code-server that trusts every workspace; the server runs in the Python of the tests."""
    with serving(home, editor_environment) as server:
        server.machine_settings({"dgemma.server.python": sys.executable})
        yield server


@pytest.fixture(scope="session")
def browser(chromium: Path) -> Iterator[Browser]:
    """Headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser_context(browser: Browser) -> Iterator[BrowserContext]:
    """A profile of the browser."""
    context = browser.new_context(viewport={"width": 1100, "height": 640})
    yield context
    context.close()


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """The folder that is open."""
    folder = Path(tempfile.mkdtemp(prefix="ws-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def window(browser_context: BrowserContext, code_server: CodeServer, workspace: Path) -> Iterator[Window]:
    """The window that most tests share, with the engine loaded: a window of its own takes ten seconds."""
    path = workspace / "warm.py"
    path.write_text(AREA)
    window = Window(browser_context.new_page(), code_server.url(workspace, path))
    window.wait_status("the first request starts the engine", timeout_ms=60_000)
    bring_up(window, workspace)
    yield window
    window.page.close()


def bring_up(window: Window, workspace: Path) -> None:
    """Types into a new file until the engine answers: while it loads, every answer is empty."""
    path = workspace / f"warm_{uuid.uuid4().hex[:6]}.py"
    path.write_text(AREA)
    window.open(path)
    window.press("Control+End")
    for _ in range(20):
        window.type(TYPED, delay_ms=30)
        try:
            window.wait_ghost(REST, timeout_ms=3_000)
            break
        except TimeoutError:
            window.press(*["Backspace"] * len(TYPED))
    assert window.ghost() == REST
    window.press("Escape")
    window.save()


@pytest.fixture(scope="module")
def stub(window: Window, code_server: CodeServer, home: Path) -> Iterator[None]:
    """Makes the window use the stub server."""
    program = home / "stub"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "stub_server.py"}"\n')
    program.chmod(0o755)
    code_server.machine_settings({"dgemma.server.path": str(program)})
    window.wait_status("the stub")
    yield
    code_server.machine_settings({"dgemma.server.python": sys.executable})
    window.wait_status("the first request starts the engine", timeout_ms=30_000)
