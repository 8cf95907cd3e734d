"""`python get_llama_cpp.py DEST`: llama.cpp's server and llama.vim of Debian's next release into DEST, and Neovim.

The server needs a model in GGUF: DEST/llama.cpp/model.gguf is a link to that of `dgemma-engine pull small`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dgemma_engine.model_store.catalogue import entry_of
from dgemma_engine.model_store.user_folder import ModelStore

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/editors"))

import get_neovim  # noqa: E402  (the tests of editors are no package)

PLUGIN, SERVER = "vim-llama.cpp", "llama.cpp-tools"


def install(dest: Path) -> None:
    """Unpacks llama.cpp, llama.vim and their libraries, and links the model.

    Raises:
        subprocess.CalledProcessError: the mirror has no such package.
        SystemExit: the model is not there.
    """
    model = ModelStore.locate(os.environ).model_path(entry_of("small"))
    if model is None:
        raise SystemExit("the model small is not there; fetch it with: dgemma-engine pull small")
    apt, suite = dest / "apt", get_neovim.SUITES[0]
    packages = get_neovim.download(apt, suite, SERVER)
    server = dest / "llama.cpp"
    shutil.rmtree(server, ignore_errors=True)
    for package in packages:
        unpack(package, server)
    (server / "model.gguf").symlink_to(model)
    command = get_neovim.configured(apt, suite)
    subprocess.run([*command, "download", PLUGIN], check=True, stdout=sys.stderr, cwd=apt)
    (package,) = apt.glob(f"{PLUGIN}_*.deb")
    unpack(package, apt / "root")
    shutil.rmtree(dest / "llama.vim", ignore_errors=True)
    shutil.move(apt / "root/usr/share" / PLUGIN, dest / "llama.vim")
    shutil.rmtree(apt)


def unpack(package: Path, folder: Path) -> None:
    """Unpacks a package's files below a folder."""
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)


if __name__ == "__main__":
    install(Path(sys.argv[1]).absolute())
    get_neovim.install(ROOT / ".editors/neovim")
