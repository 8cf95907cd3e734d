"""Runs both programs as subprocesses, in an environment that holds nothing of the user's."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

LSP, ENGINE = "dgemma_lsp", "dgemma_engine"
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _PR_CAPBSET_DROP = 1, 2, 24


def environ_in(folder: Path) -> dict[str, str]:
    """Returns an environment whose home, runtime directory and state are in `folder`."""
    (folder / "run").mkdir(mode=0o700)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "PYTHONIOENCODING": "utf-8",
        "DGEMMA_RUNTIME_DIR": str(folder / "run"),
        "XDG_STATE_HOME": str(folder / "state"),
        "HOME": str(folder),
    }


def run(
    environ: Mapping[str, str],
    program: str,
    *arguments: str | bytes,
    cwd: Path | None = None,
    before: Callable[[], object] | None = None,
    prelude: Callable[[], None] | None = None,
    flags: tuple[str, ...] = (),
    out: int | None = subprocess.PIPE,
) -> tuple[int, bytes, str]:
    """Returns exit code, standard output and standard error.

    Args:
        environ: the whole environment.
        program: `LSP` or `ENGINE`.
        arguments: after the program's name.
        cwd: where it runs.
        before: runs in the new process before the interpreter starts.
        prelude: runs in the new interpreter before the program; its source is sent, so it imports what it needs.
        flags: of the interpreter.
        out: its standard output.
    """
    command: list[str | bytes] = [sys.executable, *flags, "-m", program, *arguments]
    if prelude is not None:
        main = f"from {program}.cli import main\nraise SystemExit(main())"
        source = f"{inspect.getsource(prelude)}\n{prelude.__name__}()\n{main}"
        command = [sys.executable, *flags, "-c", source, *arguments]
    done = subprocess.run(
        command, env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, preexec_fn=before,
        timeout=100,
    )  # fmt: skip
    return done.returncode, done.stdout or b"", done.stderr.decode("utf-8", "replace")


def without_account() -> None:
    """Makes the user one without an account on the system."""
    import pwd

    def missing(uid: int) -> None:
        raise KeyError(uid)

    pwd.getpwuid = missing  # type: ignore[assignment]


def with_a_full_disk() -> None:
    """Reports every disk as full, where no small one can be mounted."""
    import shutil
    from collections import namedtuple

    Usage = namedtuple("Usage", "total used free")
    shutil.disk_usage = lambda path: Usage(1 << 30, 1 << 30, 0)  # type: ignore[assignment]


def obey_permissions() -> None:
    """Drops the right of root to bypass file permissions; other users do not have it."""
    import ctypes

    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
