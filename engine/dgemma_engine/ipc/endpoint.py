"""Where one user's engine for one model lives: socket, lock and log in a directory that only this user can enter.

Turns an environment, a model and a device into paths, and refuses paths that someone else could have prepared. Knows
nothing of processes, connections or models.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from dgemma_engine.errors import SocketRefused
from dgemma_engine.model_store.catalogue import CATALOGUE, OLD_NAMES, TINY
from dgemma_engine.model_store.hub_name import HubName
from dgemma_engine.private_files import make_private_folder, mend_folder

# macOS allows 104 bytes in sun_path, Linux 108, both with the closing NUL.
MAX_SOCKET_PATH_BYTES = 103
_PREFIX = "engine-"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLocation:
    """Paths of one engine.

    Attributes:
        model: resolved path of a model folder or file, or a short name.
        device: `auto`, `cpu`, `cuda`, ... as it was asked for; engines of different devices live side by side.
        directory: holds the three files; mode 0700.
        uid: the only user these files may belong to.
        stem: name of the files without their suffixes; empty is that of model and device.
    """

    model: str
    device: str
    directory: Path
    uid: int
    stem: str = ""

    @classmethod
    def locate(
        cls, environ: Mapping[str, str], *, model: str = TINY, device: str = "auto", uid: int | None = None
    ) -> Self:
        """Returns the location that every client of this user agrees on. Touches no file.

        Args:
            environ: `DGEMMA_RUNTIME_DIR`, else `XDG_RUNTIME_DIR`, else the directory for temporary files decides.
            model: path of a model folder or file, or a short name.
            device: where the model runs.
            uid: owner of the files; None is the user of this process.

        Raises:
            SocketRefused: no directory can be named, or the socket's path is longer than the system allows.
        """
        uid = os.getuid() if uid is None else uid
        try:
            directory = _directory(environ, uid)
            resolved = _canonical(model)
        except FileNotFoundError as error:
            raise SocketRefused("the current folder was removed; change to one that exists") from error
        location = cls(model=resolved, device=device, directory=directory, uid=uid)
        if len(os.fsencode(location.socket)) > MAX_SOCKET_PATH_BYTES:
            raise SocketRefused(
                f"{location.socket}: a socket's path may have {MAX_SOCKET_PATH_BYTES} bytes; "
                "set DGEMMA_RUNTIME_DIR to a shorter directory of your own"
            )
        return location

    @property
    def socket(self) -> Path:
        """The socket that the engine listens on."""
        return self.directory / f"{self._stem}.sock"

    @property
    def lock(self) -> Path:
        """The file that the engine holds locked while it lives; it holds the engine's process id."""
        return self.directory / f"{self._stem}.lock"

    @property
    def log(self) -> Path:
        """The log of an engine that was started in the background."""
        return self.directory / f"{self._stem}.log"

    @property
    def start_command(self) -> str:
        """The command that starts it."""
        return f"dgemma-engine start{self.options if self.model else ''}"

    @property
    def stop_command(self) -> str:
        """The command that ends it, and no other engine."""
        return f"dgemma-engine stop{self.options}"

    @property
    def options(self) -> str:
        """The options that name this engine on a command line, after `dgemma-engine stop`."""
        options = f" --model {shlex.quote(self.model)}"
        return options if self.device == "auto" else f"{options} --device {self.device}"

    def others(self) -> list[EngineLocation]:
        """Returns where engines of other models or devices ran in this directory; their `model` is unknown, so empty.

        Raises:
            SocketRefused: the directory cannot be read.
        """
        try:
            stems = sorted(path.stem for path in self.directory.glob(f"{_PREFIX}*.lock"))
        except OSError as error:
            raise self._refusal(self.directory, f"cannot be read ({error.strerror})") from error
        return [replace(self, model="", stem=stem) for stem in stems if stem != self._stem]

    @property
    def _stem(self) -> str:
        if self.stem:
            return self.stem
        # Engines of earlier versions lock the files of the old name, and must be found.
        old = next((old for old, new in OLD_NAMES.items() if new == self.model), self.model)
        key = f"{old}\0{self.device}".encode("utf-8", "surrogateescape")
        return _PREFIX + hashlib.sha256(key).hexdigest()[:10]

    def prepare(self) -> None:
        """Creates the directory where it is missing and makes sure that only this user can enter it.

        Raises:
            SocketRefused: it cannot be created or trusted.
        """
        try:
            make_private_folder(self.directory)
        except OSError as error:
            raise self._refusal(self.directory, f"cannot be created ({error.strerror})") from error
        self.verify()

    def verify(self) -> None:
        """Checks the directory and what is in it, as far as they exist; closes one of ours that is open to others.

        Raises:
            SocketRefused: the directory or the socket belongs to someone else, is not what it should be, or cannot be
                written; or there is no file where lock and log are to be.
        """
        status = self._lstat(self.directory)
        if status is None:
            return
        self._verify_directory(status)
        for path in (self.lock, self.log):
            found = self._lstat(path)
            if found is not None and not stat.S_ISREG(found.st_mode):
                raise SocketRefused(f"{path}: is not a regular file; remove it")
        socket_status = self._lstat(self.socket)
        if socket_status is None:
            return
        if socket_status.st_uid != self.uid:
            raise self._refusal(self.socket, f"belongs to user {socket_status.st_uid}")
        if not stat.S_ISSOCK(socket_status.st_mode):
            raise SocketRefused(f"{self.socket}: is not a socket; remove it")

    def _verify_directory(self, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            raise self._refusal(self.directory, "is a symbolic link")
        if not stat.S_ISDIR(status.st_mode):
            raise self._refusal(self.directory, "is not a directory")
        if status.st_uid != self.uid:
            raise self._refusal(self.directory, f"belongs to user {status.st_uid}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            self._close_directory()
        # Closed to others, but a umask may have closed it to us too.
        mend_folder(self.directory)
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise self._refusal(self.directory, "cannot be written")

    def _close_directory(self) -> None:
        try:
            # A home or a shared directory named by mistake must not be shut to others.
            if any(not entry.name.startswith(_PREFIX) for entry in self.directory.iterdir()):
                raise self._refusal(self.directory, "holds other files and is open to other users")
            self.directory.chmod(0o700)
        except OSError as error:
            raise self._refusal(self.directory, f"cannot be made private ({error.strerror})") from error

    def _lstat(self, path: Path) -> os.stat_result | None:
        try:
            return path.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refusal(path, f"cannot be read ({error.strerror})") from error

    def _refusal(self, path: Path, reason: str) -> SocketRefused:
        return SocketRefused(f"{path}: {reason}; set DGEMMA_RUNTIME_DIR to a directory of your own")


def _directory(environ: Mapping[str, str], uid: int) -> Path:
    if own := environ.get("DGEMMA_RUNTIME_DIR"):
        try:
            return Path(own).expanduser().absolute()
        except RuntimeError as error:
            raise SocketRefused(f"DGEMMA_RUNTIME_DIR={own}: no such home folder; set it to an absolute path") from error
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime).absolute() / "dgemma-lsp"
    try:
        return Path(tempfile.gettempdir()) / f"dgemma-lsp-{uid}"
    except FileNotFoundError as error:
        message = "no directory for temporary files can be written; set DGEMMA_RUNTIME_DIR to a directory of your own"
        raise SocketRefused(message) from error


def _canonical(model: str) -> str:
    """Returns one name for all ways of naming a model."""
    model = OLD_NAMES.get(model, model)
    path = _model_path(model)
    # A name of the hub that is not fetched stays one, so that the engine says how to fetch it.
    is_name = model in CATALOGUE or (HubName.parse(model) is not None and not path.exists())
    return model if is_name else str(path)


def _model_path(model: str) -> Path:
    """Returns the absolute path; one that cannot be resolved (`~nobody`, a loop of links) stays as it is written."""
    try:
        return Path(model).expanduser().resolve()
    except RuntimeError:
        return Path(model).absolute()
