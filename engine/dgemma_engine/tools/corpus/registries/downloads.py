"""Packages by name into a folder, each by the ordinary client of its registry; none is installed or run.

pip takes wheels only, because a source distribution runs its own code to tell its metadata; npm packs without scripts;
apt fetches sources with lists of its own, and the system's are left as they are.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.corpus.registries.package_table import Registry

_CLIENTS: Mapping[Registry, str] = {
    Registry.PYPI: sys.executable,
    Registry.NPM: "npm",
    Registry.DEBIAN: "apt-get",
    Registry.DEBIAN_BINARY: "apt-get",
}
_TIMEOUT_S = 900
_APT_FOLDER = Path("/etc/apt")


class Downloads:
    """The clients.

    Args:
        folder: for what a client keeps between packages; must exist.
        apt_folder: where the system's package sources are named.
    """

    def __init__(self, folder: Path, apt_folder: Path = _APT_FOLDER) -> None:
        self._folder, self._apt_folder = folder, apt_folder
        self._apt_options: list[str] | None = None

    def require(self, registry: Registry) -> None:
        """Makes sure that a registry's client is installed.

        Raises:
            TrainingError: it is not.
        """
        if shutil.which(_CLIENTS[registry]) is None:
            raise TrainingError(
                f"{_CLIENTS[registry]} is not installed, which fetches packages of {registry.value}; install it, or "
                "name the other languages with --languages"
            )

    def fetch(self, registry: Registry, name: str, folder: Path) -> list[Path]:
        """Fetches a package; returns the files that came, sorted.

        Args:
            registry: where it is.
            name: as its client takes it.
            folder: empty.

        Raises:
            TrainingError: the package could not be fetched; the message holds the client's own.
        """
        if registry is Registry.PYPI:
            _run([*pip_download(folder), name], folder)
        elif registry is Registry.NPM:
            _run(["npm", "pack", "--silent", "--ignore-scripts", name], folder)
        elif registry is Registry.DEBIAN_BINARY:
            _run(["apt-get", "download", "--quiet=2", name], folder)
        else:
            if self._apt_options is None:
                self._apt_options = self._source_lists()
            _run(["apt-get", *self._apt_options, "source", "--quiet=2", "--download-only", name], folder)
        return sorted(path for path in folder.iterdir() if path.is_file())

    def _source_lists(self) -> list[str]:
        """Fetches lists of source packages into a folder of their own; returns the options that name it."""
        named = [self._apt_folder / "sources.list", *sorted((self._apt_folder / "sources.list.d").glob("*"))]
        lists, parts = self._folder / "lists", self._folder / "parts"
        (lists / "partial").mkdir(parents=True)
        parts.mkdir()
        for path in named:
            if path.suffix in (".list", ".sources") and path.is_file():
                (parts / path.name).write_text(source_entries(path.read_text(encoding="utf-8")), encoding="utf-8")
        options = ["Dir::Etc::sourcelist=/dev/null", f"Dir::Etc::sourceparts={parts}", f"Dir::State::Lists={lists}"]
        options = [word for option in options for word in ("-o", option)]
        _run(["apt-get", *options, "update", "--quiet=2"], self._folder)
        return options


def pip_download(folder: Path) -> list[str]:
    """Returns the command that fetches a wheel into a folder, but for its name."""
    return [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--dest", str(folder),
    ]  # fmt: skip


def source_entries(text: str) -> str:
    """Returns a file of apt's package sources that names source packages in place of binary ones, in either form."""
    text = re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.MULTILINE | re.IGNORECASE)
    text = re.sub(r"^deb-src\s.*$\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"^deb(?=\s)", "deb-src", text, flags=re.MULTILINE)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrainingError(f"{command[-1]}: could not be fetched ({error})") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        # apt's first error names the file, its last one counts them.
        cause = next((line for line in lines if line.startswith("E:")), (lines or [f"exit code {done.returncode}"])[-1])
        raise TrainingError(f"{command[-1]}: could not be fetched ({cause})")
