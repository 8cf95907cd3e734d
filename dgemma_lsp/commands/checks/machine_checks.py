"""Facts about the machine and the user's folders -> findings. Pure."""

from __future__ import annotations

from dgemma_lsp.commands.checks.facts import Facts, FolderFacts
from dgemma_lsp.commands.checks.finding import Finding, Severity

_GIB, _MIB = 1 << 30, 1 << 20
# Socket, lock and a log of at most 1 MiB; the counts of the statistics take 256 KiB twice.
_LEAST_FREE_BYTES = 2 * _MIB
# Oldest driver of each major version of CUDA; within one, newer minor versions run on it
# (docs.nvidia.com/deploy/cuda-compatibility).
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}


def check_python(facts: Facts) -> Finding:
    """Which Python this is."""
    return Finding(name="python", verdict=Severity.OK, detail=facts.python)


def check_device(facts: Facts) -> Finding:
    """Whether the device of the settings can be used by the installed torch."""
    name, gpu, status = "device", facts.gpu, facts.engine.status
    if status is not None and status.device.startswith("cuda"):
        return Finding(name=name, verdict=Severity.OK, detail=_cards(facts, status.device))
    problem, remedy = _gpu_problem(facts)
    device = facts.device if status is None else status.device or facts.device
    if facts.device.startswith(("cuda", "mps")) and problem:
        return Finding(name=name, verdict=Severity.FAIL, detail=f"{facts.device}: {problem}", remedy=remedy)
    if facts.device == "auto" and gpu.other:
        detail = f"{device}: {gpu.other}, so the model runs on the processor"
        return Finding(name=name, verdict=Severity.OK, detail=detail)
    if facts.device == "auto" and gpu.driver and problem:
        detail = f"{device}: {problem}, so the model runs on the processor"
        return Finding(name=name, verdict=Severity.WARN, detail=detail, remedy=f"{remedy}; or set the device to cpu")
    return Finding(name=name, verdict=Severity.OK, detail=_cards(facts, device))


def check_memory(facts: Facts) -> Finding:
    """Whether there is enough memory for the model `tiny`."""
    total, available = facts.memory_bytes
    detail = f"{total / _GIB:.1f} GiB, {available / _GIB:.1f} GiB of it available"
    if (status := facts.engine.status) is not None:
        detail += f"; the engine holds {status.memory_bytes / _GIB:.1f} GiB"
        if status.device_memory_bytes:
            detail += f" and {status.device_memory_bytes / _GIB:.1f} GiB on its device"
    if total < 2 * _GIB:
        return Finding(name="memory", verdict=Severity.WARN, detail=detail, remedy="the model tiny needs 2 GiB")
    return Finding(name="memory", verdict=Severity.OK, detail=detail)


def check_disk(facts: Facts) -> Finding | None:
    """Whether the engine can write its lock and log; None where its directory is refused."""
    disk = facts.runtime_disk
    if disk is None:
        return None
    detail = f"{disk.path}: {_size(disk.free_bytes)} free"
    if disk.free_bytes < _LEAST_FREE_BYTES:
        remedy = "make room, or set DGEMMA_RUNTIME_DIR to a directory of your own on another disk"
        # An engine that runs needs no more than it has.
        verdict = Severity.FAIL if facts.engine.status is None else Severity.WARN
        return Finding(name="disk", verdict=verdict, detail=f"{detail}; it is full", remedy=remedy)
    return Finding(name="disk", verdict=Severity.OK, detail=detail)


def check_home(facts: Facts) -> Finding:
    """Whether the user has a home folder, which patterns of private files and the statistics refer to."""
    if facts.home is None:
        return Finding(
            name="home",
            verdict=Severity.WARN,
            detail="HOME is not set and the user has no account: no statistics are kept, ~/ in privateFiles means /",
            remedy="set HOME to a folder of yours",
        )
    return Finding(name="home", verdict=Severity.OK, detail=facts.home)


def check_stats(facts: Facts) -> Finding:
    """Whether the statistics can be read and written; completions work without them."""
    name, folder = "statistics", facts.state_folder
    if facts.stats_problem:
        return Finding.split(name, Severity.WARN, facts.stats_problem, remedy=f"make {folder.path} readable")
    if facts.home is not None and (problem := _write_problem(folder)):
        remedy = f"make {folder.path} writable, set XDG_STATE_HOME, or set dgemma.stats to false"
        return Finding(name=name, verdict=Severity.WARN, detail=f"{folder.path}: {problem}", remedy=remedy)
    return Finding(name=name, verdict=Severity.OK, detail=facts.stats)


def _write_problem(folder: FolderFacts) -> str:
    if folder.problem:
        return f"{folder.problem}; nothing is counted"
    return "the disk is full; nothing is counted" if folder.free_bytes < _LEAST_FREE_BYTES else ""


def _gpu_problem(facts: Facts) -> tuple[str, str]:
    """Returns why CUDA cannot be used and what to do; empty texts where it can be."""
    gpu = facts.gpu
    if gpu.other:
        return gpu.other, "set the device to auto or cpu"
    if not gpu.driver:
        return "no NVIDIA driver is loaded", "install it, or set the device to auto or cpu"
    if "torch" in facts.missing:
        return "", ""
    if not gpu.torch_cuda:
        return "the installed torch is built without CUDA", "install a torch with CUDA"
    oldest = _OLDEST_DRIVER.get(_major(gpu.torch_cuda), 0)
    if _major(gpu.driver) < oldest:
        problem = f"driver {gpu.driver} is too old for torch built with CUDA {gpu.torch_cuda}"
        return problem, f"update the driver to {oldest} or newer"
    return "", ""


def _cards(facts: Facts, device: str) -> str:
    gpu = facts.gpu
    if not gpu.driver:
        return f"{device} (no NVIDIA driver)"
    names = f"{', '.join(gpu.names)}, " if gpu.names else ""
    return f"{device} ({names}driver {gpu.driver})"


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB else f"{num_bytes / _MIB:.1f} MiB"
