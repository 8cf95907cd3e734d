"""What works, what does not, and what to do: one `Check` per thing that a completion needs.

Looks, never repairs; starts no engine and imports none of the heavy packages it asks about.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dgemma_engine.client import EngineClient, EngineFault, EngineLocation, EngineUnavailable
from dgemma_engine.messages import EngineState, Status

from dgemma_lsp import __version__
from dgemma_lsp.settings import Settings
from dgemma_lsp.stats_file import StatsFile

_ENGINE_PACKAGES = ("torch", "safetensors", "tokenizers", "numpy", "psutil")
_INSTALL = "pip install 'dgemma-lsp[engine]'"
_GIB = 1 << 30


class Verdict(StrEnum):
    """How bad it is: `FAIL` means that no completion can come."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        verdict: how bad it is.
        detail: what was found.
        remedy: what to do; empty where nothing needs to be done.
    """

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dict."""
        return asdict(self) | {"verdict": self.verdict.value}


async def examine(settings: Settings) -> list[Check]:
    """Looks at everything that a completion with these settings needs.

    Args:
        settings: model and device to look for.
    """
    socket_check, location = _check_socket(settings)
    engine_check, status = await _check_engine(location)
    return [
        _check_python(),
        _check_package(),
        _check_engine_packages(needed=status is None),
        socket_check,
        engine_check,
        _check_model(settings, status),
        _check_device(settings, status),
        _check_memory(status),
        _check_stats(),
    ]


def is_usable(checks: Sequence[Check]) -> bool:
    """Whether a completion can come."""
    return all(check.verdict is not Verdict.FAIL for check in checks)


def to_table(checks: Sequence[Check]) -> str:
    """Returns the findings for a person, a line each, remedies below."""
    width = max(len(check.name) for check in checks)
    rows: list[str] = []
    for check in checks:
        rows.append(f"{check.verdict.value:<4}  {check.name:<{width}}  {check.detail}")
        if check.remedy:
            rows.append(f"{'':<4}  {'':<{width}}  -> {check.remedy}")
    rows.append(
        "Nothing found that stands in the way of completions."
        if is_usable(checks)
        else "Completions do not work yet: see the lines marked fail."
    )
    return "\n".join(rows)


def _check_python() -> Check:
    return Check(name="python", verdict=Verdict.OK, detail=f"{platform.python_version()} on {platform.platform()}")


def _check_package() -> Check:
    parts = [f"dgemma-lsp {__version__}", *(f"{name} {_version(name)}" for name in ("pygls", "lsprotocol"))]
    return Check(name="server", verdict=Verdict.OK, detail=", ".join(parts))


def _check_engine_packages(*, needed: bool) -> Check:
    missing = [name for name in _ENGINE_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return Check(
            name="engine extra",
            verdict=Verdict.FAIL if needed else Verdict.WARN,
            detail=f"not installed: {', '.join(missing)}",
            remedy=_INSTALL,
        )
    detail = ", ".join(f"{name} {_version(name)}" for name in _ENGINE_PACKAGES)
    return Check(name="engine extra", verdict=Verdict.OK, detail=detail)


def _check_socket(settings: Settings) -> tuple[Check, EngineLocation | None]:
    try:
        location = EngineLocation.locate(os.environ, model=settings.engine_model, device=settings.engine_device)
        location.verify()
    except EngineUnavailable as error:
        message, _, remedy = str(error).partition("; ")
        check = Check(name="socket directory", verdict=Verdict.FAIL, detail=message, remedy=remedy)
        return check, None
    if not location.directory.exists():
        detail = f"{location.directory} (made when the engine starts)"
    else:
        detail = f"{location.directory} {stat.filemode(location.directory.stat().st_mode)}"
    return Check(name="socket directory", verdict=Verdict.OK, detail=detail), location


async def _check_engine(location: EngineLocation | None) -> tuple[Check, Status | None]:
    name = "engine"
    if location is None:
        return Check(name=name, verdict=Verdict.FAIL, detail="not reachable without its socket"), None
    try:
        async with await EngineClient.attach_any(location) as client:
            status = await client.status()
    except (EngineUnavailable, EngineFault):
        detail = "none runs now; the first completion starts it"
        return Check(name=name, verdict=Verdict.WARN, detail=detail, remedy="dgemma-engine start"), None
    detail = f"{status.state.value}, process {status.pid}, version {status.version}, up {status.uptime_s:.0f} s"
    if status.state is EngineState.FAILED:
        return Check(name=name, verdict=Verdict.FAIL, detail=status.message, remedy=f"see {location.log}"), status
    try:
        client.hello.verify()
    except EngineUnavailable as error:
        message, _, remedy = str(error).partition("; ")
        return Check(name=name, verdict=Verdict.WARN, detail=f"{detail}; {message}", remedy=remedy), status
    if status.version != __version__:
        remedy = "dgemma-engine stop; the next completion starts the version of this server"
        return Check(name=name, verdict=Verdict.WARN, detail=detail, remedy=remedy), status
    return Check(name=name, verdict=Verdict.OK, detail=detail), status


def _check_model(settings: Settings, status: Status | None) -> Check:
    name = "model"
    if status is not None:
        return Check(name=name, verdict=Verdict.OK, detail=f"{status.model} ({status.model_path})")
    if settings.engine_model == "embedded":
        return Check(name=name, verdict=Verdict.OK, detail="embedded (looked up when the engine starts)")
    folder = Path(settings.engine_model).expanduser()
    if not (folder / "config.json").is_file():
        remedy = "name a Hugging Face folder of a DiffusionGemma model, or embedded"
        return Check(name=name, verdict=Verdict.FAIL, detail=f"{folder}: no config.json", remedy=remedy)
    if not any(folder.glob("*.safetensors")):
        return Check(
            name=name, verdict=Verdict.FAIL, detail=f"{folder}: no *.safetensors", remedy="download the weights"
        )
    return Check(name=name, verdict=Verdict.OK, detail=str(folder))


def _check_device(settings: Settings, status: Status | None) -> Check:
    if status is not None:
        return Check(name="device", verdict=Verdict.OK, detail=status.device or settings.engine_device)
    driver = "an NVIDIA driver is there" if Path("/proc/driver/nvidia/version").exists() else "no NVIDIA driver"
    return Check(name="device", verdict=Verdict.OK, detail=f"{settings.engine_device} ({driver})")


def _check_memory(status: Status | None) -> Check:
    total, available = (_pages_gib(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    detail = f"{total:.1f} GiB, {available:.1f} GiB of it unused"
    if status is not None:
        detail += f"; the engine holds {status.memory_bytes / _GIB:.1f} GiB"
        if status.device_memory_bytes:
            detail += f" and {status.device_memory_bytes / _GIB:.1f} GiB on its device"
    if total < 2:
        return Check(name="memory", verdict=Verdict.WARN, detail=detail, remedy="the embedded model wants 2 GiB")
    return Check(name="memory", verdict=Verdict.OK, detail=detail)


def _check_stats() -> Check:
    name = "statistics"
    file = StatsFile.locate(os.environ, home=Path.home())
    try:
        counted = file.read()
    except OSError as error:
        return Check(
            name=name, verdict=Verdict.WARN, detail=f"{file.path}: {error.strerror}", remedy="make it readable"
        )
    except ValueError as error:
        message, _, remedy = str(error).partition("; ")
        return Check(name=name, verdict=Verdict.WARN, detail=message, remedy=remedy)
    detail = f"{file.path}, since {counted.since}" if counted else f"{file.path} (nothing counted yet)"
    return Check(name=name, verdict=Verdict.OK, detail=detail)


def _pages_gib(name: str) -> float:
    try:
        return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") / _GIB
    except (ValueError, OSError):
        return 0.0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(version unknown)"
