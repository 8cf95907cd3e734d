"""Installing into an empty home; and the built artefacts together, from a fresh profile to a suggestion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.editors.conftest import ROOT, engines
from tests.editors.get_vscode import FOLDER, NODE, install
from tests.editors.vscode.code_server import install_extension, serving
from tests.editors.vscode.conftest import bring_up
from tests.editors.vscode.documents import AREA
from tests.editors.vscode.window import Window

CODE = FOLDER / "node_modules/.bin/code-server"
EXTENSION = "dgemma.dgemma-lsp"


@pytest.fixture
def empty() -> Iterator[Path]:
    """A folder for a home, with a short name: sockets are made in it."""
    folder = Path(tempfile.mkdtemp(prefix="new-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bare(empty: Path) -> Iterator[dict[str, str]]:
    """The environment of a user who has nothing: no package of this checkout is found, and no engine of it."""
    (empty / "bin").mkdir()
    (empty / "bin/python3").symlink_to(Path(sys.base_prefix) / "bin/python3")
    path = os.pathsep.join([str(NODE.parent), str(empty / "bin"), "/usr/bin", "/bin"])
    kept = {name: os.environ[name] for name in ("LANG", "PIP_INDEX_URL", "SSL_CERT_FILE") if name in os.environ}
    runtime = empty / "r"
    yield kept | {"HOME": str(empty), "PATH": path, "DGEMMA_RUNTIME_DIR": str(runtime), "OMP_NUM_THREADS": "1"}
    for process in engines(runtime):
        process.kill()
        process.wait(10)


def make(*arguments: str, environ: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    # `-o setup`: uses the environment that runs the tests and makes no other.
    command = ["make", "-s", "-o", "setup", f"BIN={Path(sys.executable).parent}", *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(environ), capture_output=True, text=True, check=False)


def test_make_install_vscode_installs_with_a_real_command(empty: Path, bare: dict[str, str]) -> None:
    install()
    done = make("install-vscode", f"CODE={CODE}", f"DIST={empty}", environ=bare)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([CODE, "--list-extensions"], env=bare, capture_output=True, text=True, check=True).stdout
    assert EXTENSION in listed.split()


def test_missing_command_is_reported_with_what_to_do(empty: Path, bare: dict[str, str]) -> None:
    done = make("install-vscode", f"DIST={empty}", environ=bare | {"PATH": f"{empty}/bin:/bin"})
    assert done.returncode != 0
    assert "There is no command code." in done.stderr
    assert "CODE=codium" in done.stderr
    assert not list(empty.glob("*.vsix")), "nothing was built"


def test_the_artefacts_lead_from_a_fresh_profile_to_a_suggestion(
    empty: Path, bare: dict[str, str], browser: Browser, vsix: Path
) -> None:
    """The .vsix and the wheel; the engine's dependencies, several gigabytes, come from the environment of the tests."""
    install()
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(empty / "dist"),
        str(ROOT),
    ]
    subprocess.run(wheel, check=True)
    [built] = (empty / "dist").glob("*.whl")
    workspace = empty / "project"
    workspace.mkdir()
    (workspace / "new.py").write_text(AREA)
    install_extension(empty / "code", vsix, bare)
    page = browser.new_page(viewport={"width": 1100, "height": 640})
    with serving(empty / "code", bare) as server:
        window = Window(page, server.url(workspace, workspace / "new.py"))
        notice = window.notice("dgemma: The server dgemma-lsp is not installed:")
        window.shot("not-installed")
        notice.get_by_role("button", name="Install Help").click()
        page.get_by_text('pip install "dgemma-lsp[engine]"').first.wait_for()
        window.shot("install-help")

        venv.create(workspace / ".venv", with_pip=False)
        python = workspace / ".venv/bin/python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", str(built)]
        subprocess.run(pip, check=True)
        page.get_by_role("button", name="Restart the server").click()
        window.wait_status("the first request starts the engine", timeout_ms=30_000)
        window.open(workspace / "new.py")
        window.press("Control+End")
        window.type("print(")
        window.notice("dgemma: ")
        window.shot("without-the-engine")
        window.wait_status(r"^error .*pip install 'dgemma-lsp\[engine\]'")

        [packages] = (workspace / ".venv/lib").glob("python*/site-packages")
        (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
        window.command("dgemma: Restart the Server")
        window.wait_status("the first request starts the engine|Ready", timeout_ms=30_000)
        bring_up(window, workspace)
        where = [
            str(python),
            "-c",
            "import dgemma_lsp, dgemma_engine; print(dgemma_lsp.__file__, dgemma_engine.__file__)",
        ]
        found = subprocess.run(
            where, cwd=workspace, env=bare, capture_output=True, text=True, check=True
        ).stdout.split()
        assert all(Path(file).is_relative_to(workspace / ".venv") for file in found), found
    page.close()
