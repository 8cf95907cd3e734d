"""Files inside an archive, read where they lie: nothing of a package is written to disk or run."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dgemma_engine.errors import TrainingError

_AR_MAGIC = b"!<arch>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file of an archive; valid until the next one is yielded.

    Attributes:
        path: in the archive, without a folder that holds all of it.
        num_bytes: its size, as the archive has it.
        read: returns its bytes.
    """

    path: PurePosixPath
    num_bytes: int
    read: Callable[[], bytes]


def members(path: Path) -> Iterator[Member]:
    """Yields the files of a wheel, zip, tar archive or Debian package; links and devices are left out.

    Raises:
        TrainingError: it is damaged, or of another kind.
    """
    try:
        if zipfile.is_zipfile(path):
            yield from _zip_members(path)
            return
        with path.open("rb") as file:
            yield from _tar_members(_debian_content(file) if file.read(len(_AR_MAGIC)) == _AR_MAGIC else file)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        cause = str(error).partition("\n")[0]
        raise TrainingError(f"{path.name}: is no archive that can be read ({cause})") from error


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Member(
                    path=PurePosixPath(info.filename),
                    num_bytes=info.file_size,
                    read=lambda info=info: archive.read(info),
                )


def _tar_members(file: BinaryIO) -> Iterator[Member]:
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        infos = [info for info in archive.getmembers() if info.isfile()]
        names = [PurePosixPath(info.name.removeprefix("./")) for info in infos]
        tops = {name.parts[0] if len(name.parts) > 1 else "" for name in names}
        # Packaging files of Debian lie in `debian`, which is a part of their paths.
        num_shared = int(len(tops) == 1 and tops.isdisjoint({"", "debian"}))
        for info, name in zip(infos, names, strict=True):
            yield Member(
                path=PurePosixPath(*name.parts[num_shared:]),
                num_bytes=info.size,
                read=lambda info=info: _content(archive, info),
            )


def _debian_content(file: BinaryIO) -> BinaryIO:
    """Returns the tar archive of a Debian package's files: a member of an `ar` archive, whose headers are text."""
    while len(header := file.read(60)) == 60:
        name, num_bytes = header[:16].decode("ascii", "replace"), header[48:58].strip()
        if not num_bytes.isdigit():
            break
        if name.startswith("data.tar"):
            return io.BytesIO(file.read(int(num_bytes)))
        # Members begin at even places.
        file.seek(int(num_bytes) + int(num_bytes) % 2, io.SEEK_CUR)
    raise tarfile.ReadError("a Debian package without files")


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    return b"" if file is None else file.read()
