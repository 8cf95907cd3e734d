"""Installing as the help file says, into an empty home: plugin and help are found, and a server starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.editors.conftest import ROOT
from tests.editors.neovim.conftest import SERVER

LOOK = """
vim.wait(15000, function() return (vim.lsp.get_clients({ name = "dgemma" })[1] or {}).initialized end, 20)
vim.cmd("helptags ALL")
vim.cmd.help("dgemma-install")
local client = vim.lsp.get_clients({ name = "dgemma" })[1]
io.stdout:write(client and client.server_info.name or "none", " ", vim.fn.expand("%:t"), "\\n")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / ".config/nvim").mkdir(parents=True)
    return folder


def make(target: str, **variables: str) -> None:
    # `-o setup`: uses the environment that runs the tests and makes no other.
    command = ["make", "-s", "-o", "setup", target, f"BIN={Path(SERVER[0]).parent}"]
    subprocess.run([*command, *(f"{name}={value}" for name, value in variables.items())], cwd=ROOT, check=True)


def look(neovim: Path, environment: Mapping[str, str], home: Path, init: str) -> str:
    """Starts Neovim as its user does; returns the names of the server that started and the help page that opened."""
    (home / ".config/nvim/init.lua").write_text(init)
    (home / "look.lua").write_text(LOOK)
    (home / "a.py").write_text("x = 1\n")
    kept = {name: value for name, value in environment.items() if not name.startswith(("XDG_", "NVIM"))}
    command = [neovim, "--headless", "-n", "a.py", "+luafile look.lua", "+qa!"]
    done = subprocess.run(command, cwd=home, env=kept | {"HOME": str(home)}, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def setup(cmd: list[str] | None) -> str:
    option = "" if cmd is None else "cmd = {" + ", ".join(f"'{each}'" for each in cmd) + "}"
    return f"require('dgemma').setup({{ {option} }})\n"


def test_from_the_archive(neovim: Path, editor_environment: Mapping[str, str], home: Path, tmp_path: Path) -> None:
    make("package-neovim", DIST=str(tmp_path))
    (archive,) = tmp_path.glob("dgemma-nvim-*.tar.gz")
    start = home / ".local/share/nvim/site/pack/dgemma/start"
    start.mkdir(parents=True)
    with tarfile.open(archive) as packed:
        packed.extractall(start, filter="data")
    assert "dgemma-lsp dgemma.txt" in look(neovim, editor_environment, home, setup(SERVER))


def test_from_the_repository(neovim: Path, editor_environment: Mapping[str, str], home: Path) -> None:
    make("install-neovim", HOME=str(home), XDG_DATA_HOME="")
    # No option cmd: the server is found through `python3` on PATH.
    python = home / "bin/python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {SERVER[0]} "$@"\n')
    python.chmod(0o755)
    environment = dict(editor_environment) | {"PATH": f"{python.parent}:{os.defpath}", "VIRTUAL_ENV": ""}
    assert "dgemma-lsp dgemma.txt" in look(neovim, environment, home, setup(None))


def test_by_vim_pack(neovim: Path, editor_environment: Mapping[str, str], home: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "editors/neovim", source / "editors/neovim")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(source)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "all"], check=True)
    init = f"""
vim.pack.add({{ {{ src = "file://{source}", name = "dgemma-lsp" }} }}, {{
  confirm = false,
  load = function(plugin) vim.opt.runtimepath:append(plugin.path .. "/editors/neovim") end,
}})
"""
    assert "dgemma-lsp dgemma.txt" in look(neovim, editor_environment, home, init + setup(SERVER))
