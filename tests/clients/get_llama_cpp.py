"""`python get_llama_vim.py DEST`: llama.vim of Debian's next release into DEST/llama.vim; fetches Neovim too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/editors"))

import get_neovim  # noqa: E402  (the tests of editors are no package)

PACKAGE = "vim-llama.cpp"


def install(dest: Path) -> None:
    """Unpacks the plugin.

    Raises:
        subprocess.CalledProcessError: the mirror has no such package.
    """
    apt = dest / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    suite, mirror = get_neovim.SUITES[0], get_neovim.mirror()
    sources = get_neovim.SOURCES.format(
        mirror=mirror, suite=suite, architecture=architecture, keyring=get_neovim.KEYRING
    )
    (apt / "next.sources").write_text(sources, encoding="utf-8")
    (apt / "apt.conf").write_text(get_neovim.APT_CONF.format(apt=apt, architecture=architecture), encoding="utf-8")
    command = ["apt-get", "-q", "-c", str(apt / "apt.conf")]
    subprocess.run([*command, "update"], check=True, stdout=sys.stderr)
    subprocess.run([*command, "download", PACKAGE], check=True, stdout=sys.stderr, cwd=apt)
    (archive,) = apt.glob(f"{PACKAGE}_*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, apt / "root"], check=True)
    shutil.rmtree(dest / "llama.vim", ignore_errors=True)
    shutil.move(apt / "root/usr/share" / PACKAGE, dest / "llama.vim")
    shutil.rmtree(apt)


if __name__ == "__main__":
    install(Path(sys.argv[1]).absolute())
    get_neovim.install(ROOT / ".editors/neovim")
