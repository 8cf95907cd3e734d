"""Looks up the `Facts` that the checks judge: packages, files, disks, the driver, and the engine over its socket.

Changes nothing, starts no engine, and imports none of the heavy packages; `nvidia-smi` is the only program it runs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dgemma_engine.checkpoint.builtin import require_model
from dgemma_engine.ipc.client import (
    EngineClient,
    EngineFault,
    EngineLocation,
    EngineUnavailable,
    NoEngine,
    OlderEngine,
)
from dgemma_engine.ipc.running_engines import RunningEngine, running_engines
from dgemma_engine.model_store.catalogue import renamed

from dgemma_lsp import __version__
from dgemma_lsp.commands.checks.facts import EngineFacts, Facts, FolderFacts, GpuFacts, ModelFacts, OtherEngine
from dgemma_lsp.commands.checks.packages import python_version, version_of
from dgemma_lsp.engine_client.connector import chosen_model
from dgemma_lsp.metrics.store import StatsFile
from dgemma_lsp.settings.home import NO_HOME, home_folder
from dgemma_lsp.settings.settings import Settings

_ENGINE_PACKAGES = ("torch", "safetensors", "tokenizers", "numpy", "psutil")
_DRIVER = Path("/proc/driver/nvidia/version")
_MEMINFO = Path("/proc/meminfo")
_SMI = ("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")
_SMI_PATIENCE_S = 10.0
_ATTACH_PATIENCE_S = 5.0


async def look_up(settings: Settings, environ: Mapping[str, str]) -> Facts:
    """Returns what there is to judge.

    Args:
        settings: model and device.
        environ: the process's environment.
    """
    location, refusal = _locate(settings, environ)
    engine = EngineFacts(refusal=refusal) if location is None else await _engine(location, environ)
    home = home_folder(environ)
    stats_file = StatsFile.locate(environ, home=home or NO_HOME)
    stats, stats_problem = _stats(stats_file)
    return Facts(
        python=python_version(),
        versions={name: version_of(name) for name in _ENGINE_PACKAGES},
        missing=tuple(name for name in _ENGINE_PACKAGES if importlib.util.find_spec(name) is None),
        server_version=__version__,
        device=settings.engine_device,
        engine=engine,
        model=_model(settings),
        gpu=_gpu(),
        memory_bytes=(_pages("SC_PHYS_PAGES"), available_bytes(_MEMINFO)),
        home=None if home is None else str(home),
        runtime_disk=None if location is None or refusal else _folder(location.directory),
        state_folder=_folder(stats_file.path.parent),
        stats=stats,
        stats_problem=stats_problem,
    )


def _locate(settings: Settings, environ: Mapping[str, str]) -> tuple[EngineLocation | None, str]:
    try:
        model = chosen_model(settings).runs
        location = EngineLocation.locate(environ, model=model, device=settings.engine_device)
        location.verify()
    except EngineUnavailable as error:
        return None, str(error)
    return location, ""


async def _engine(location: EngineLocation, environ: Mapping[str, str]) -> EngineFacts:
    place = f"{location.directory} (made when the engine starts)"
    if location.directory.exists():
        place = f"{location.directory} {stat.filemode(location.directory.stat().st_mode)}"
    known = EngineFacts(
        place=place,
        log=str(location.log),
        start_command=location.start_command,
        stop_command=location.stop_command,
        others=tuple([await _other(one) for one in running_engines(environ) if one.location.lock != location.lock]),
    )
    return await _asked(location, known)


async def _asked(location: EngineLocation, known: EngineFacts) -> EngineFacts:
    try:
        async with await EngineClient.attach_any(location, timeout_s=_ATTACH_PATIENCE_S) as client:
            status = await client.status()
    except NoEngine:
        return known
    except (EngineUnavailable, EngineFault) as error:
        return replace(known, problem=str(error))
    try:
        client.hello.verify()
    except EngineUnavailable as error:
        replaceable = isinstance(error, OlderEngine) and status.clients <= 1
        return replace(known, problem=str(error), replaceable=replaceable, status=status)
    return replace(known, status=status)


async def _other(engine: RunningEngine) -> OtherEngine:
    try:
        async with await EngineClient.attach_any(engine.location, timeout_s=_ATTACH_PATIENCE_S) as client:
            status = await client.status()
    except (EngineUnavailable, EngineFault):
        return OtherEngine(pid=engine.pid, stop_command=engine.stop_command)
    return OtherEngine(
        pid=engine.pid,
        stop_command=engine.named(status).stop_command,
        version=status.version,
        model=status.model,
        memory_bytes=status.memory_bytes,
    )


def _model(settings: Settings) -> ModelFacts:
    choice = chosen_model(settings)
    notice = renamed(settings.engine_model) or (choice.notice if choice.is_stand_in else "")
    try:
        require_model(choice.runs)
    except ValueError as error:
        return ModelFacts(name=choice.runs, notice=notice, problem=str(error))
    return ModelFacts(name=choice.runs, notice=notice)


def _gpu() -> GpuFacts:
    driver, names = _nvidia_smi()
    return GpuFacts(
        driver=driver or _loaded_driver(), names=names, torch_cuda=_torch_version("cuda"), other=_other_card()
    )


def _other_card() -> str:
    """Returns why a card of another maker than NVIDIA is not used, as `dgemma_engine.model.devices` words it."""
    if _torch_version("hip"):
        return "the installed torch is built for AMD's cards, for which there are no kernels yet"
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "there are no kernels for Apple's cards yet"
    return ""


def _nvidia_smi() -> tuple[str, tuple[str, ...]]:
    """Returns driver version and cards; empty where the program is missing or fails."""
    try:
        done = subprocess.run(
            _SMI, capture_output=True, text=True, errors="replace", timeout=_SMI_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "", ()
    rows = [line.split(", ", 1) for line in done.stdout.splitlines() if ", " in line]
    return (rows[0][0].strip() if rows else ""), tuple(row[1].strip() for row in rows)


def _loaded_driver() -> str:
    try:
        text = _DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"\s(\d{3,}(?:\.\d+)+)\s", text)
    return found[1] if found else ""


def _torch_version(of: str) -> str:
    """Returns the version of `cuda` or `hip` in torch's `version.py`, read as text: importing torch takes seconds."""
    found = importlib.util.find_spec("torch")
    for folder in (found.submodule_search_locations or ()) if found else ():
        try:
            text = (Path(folder) / "version.py").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if match := re.search(rf"^{of}\b[^=\n]*=\s*['\"]([\d.]+)", text, re.MULTILINE):
            return match[1]
    return ""


def _folder(path: Path) -> FolderFacts:
    """Returns facts about a folder, or about its nearest existing parent, in which it would be created."""
    there = path
    while not _exists(there) and there != there.parent:
        there = there.parent
    try:
        free_bytes = shutil.disk_usage(there).free
    except OSError as error:
        return FolderFacts(path=str(there), free_bytes=0, problem=error.strerror or str(error))
    return FolderFacts(path=str(there), free_bytes=free_bytes, problem=_write_problem(there))


def _write_problem(folder: Path) -> str:
    if not folder.is_dir():
        return "is not a folder"
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return "is on a read-only file system" if read_only else "is not writable for this user"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _stats(file: StatsFile) -> tuple[str, str]:
    try:
        counted = file.read()
    except OSError as error:
        return "", f"{file.path}: {error.strerror}; make it readable, or remove it"
    except ValueError as error:
        return "", str(error)
    return f"{file.path}, since {counted.since}" if counted else f"{file.path} (nothing counted yet)", ""


def available_bytes(meminfo: Path) -> int:
    """Returns the bytes that a new program can have, as Linux counts them: unused ones, and those of cached files.

    Args:
        meminfo: `/proc/meminfo`; without it, or without the figure in it, the unused bytes count.
    """
    try:
        known = re.search(r"^MemAvailable: +([0-9]+) kB$", meminfo.read_text(encoding="ascii"), flags=re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        known = None
    return int(known[1]) * 1_024 if known else _pages("SC_AVPHYS_PAGES")


def _pages(name: str) -> int:
    try:
        return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
