"""Ends the engines that a benchmark's editors started: those whose runtime folder is inside the benchmark's own."""

from __future__ import annotations

import psutil


def end_engines(folder: str) -> None:
    """Kills every engine whose `DGEMMA_RUNTIME_DIR` begins with `folder`."""
    for process in psutil.process_iter(["cmdline"]):
        if "dgemma_engine" in (process.info["cmdline"] or []) and _is_in(process, folder):
            process.kill()


def _is_in(process: psutil.Process, folder: str) -> bool:
    try:
        return process.environ().get("DGEMMA_RUNTIME_DIR", "").startswith(folder)
    except psutil.Error:
        return False
