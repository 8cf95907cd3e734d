"""Tiny archives in the forms that registries serve."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.corpus.registries.package_table import Registry

COPYRIGHT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n"


def write_wheel(folder: Path, files: Mapping[str, str], *, licence: str = "License-Expression: MIT") -> Path:
    """Writes a wheel; `licence` are header lines of its metadata."""
    path = folder / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some-1.0.dist-info/METADATA", f"Metadata-Version: 2.4\nName: some\n{licence}\n\nA text.\n")
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def write_npm(folder: Path, files: Mapping[str, str], **fields: object) -> Path:
    """Writes an npm package; `fields` go into its `package.json`."""
    values = {"name": "some", "version": "1.0.0", "license": "MIT"} | fields
    return write_tar(
        folder / "some-1.0.0.tgz",
        {f"package/{name}": text for name, text in ({"package.json": json.dumps(values)} | dict(files)).items()},
    )


def write_debian(folder: Path, files: Mapping[str, str], *, copyright_text: str) -> list[Path]:
    """Writes a Debian source package: the upstream archive and that of its packaging."""
    (folder / "some_1.0-1.dsc").write_text("Format: 3.0 (quilt)\n")
    return [
        folder / "some_1.0-1.dsc",
        write_tar(folder / "some_1.0.orig.tar.gz", {f"some-1.0/{name}": text for name, text in files.items()}),
        write_tar(folder / "some_1.0-1.debian.tar.xz", {"debian/copyright": copyright_text, "debian/rules": "#!"}),
    ]


def write_deb(folder: Path, files: Mapping[str, str], *, copyright_text: str) -> Path:
    """Writes a Debian binary package."""
    files = {f"./usr/{name}": text for name, text in files.items()}
    files |= {"./usr/share/doc/some-dev/copyright": copyright_text}
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        "data.tar.xz": write_tar(folder / "data.tar.xz", files).read_bytes(),
    }
    path = folder / "some-dev_1.0_all.deb"
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in parts.items():
            file.write(f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


def write_tar(path: Path, files: Mapping[str, str]) -> Path:
    """Writes a tar archive, compressed as its name says."""
    with tarfile.open(path, {".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w:gz")) as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name, text in files.items():
            content = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("some-link.go")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def source(seed: str, num_functions: int = 12) -> str:
    """Text long enough for a corpus, different for each seed."""
    return "".join(f"def {seed}_{i}(value):\n    return value * other_{seed}_{i}\n\n\n" for i in range(num_functions))


class FolderFetcher:
    """Returns packages that a test has written, by name, and none of another name."""

    def __init__(self, packages: Mapping[str, Path]) -> None:
        self._packages = packages
        self.asked: list[tuple[Registry, str]] = []

    def fetch(self, registry: Registry, name: str, folder: Path) -> list[Path]:
        self.asked.append((registry, name))
        if name not in self._packages:
            raise TrainingError(f"{name}: could not be fetched (no such package)")
        return sorted(path for path in self._packages[name].iterdir() if path.is_file())
