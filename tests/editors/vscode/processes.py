"""The language servers that windows under test have started, found by what they run and where their engines are."""

from __future__ import annotations

from pathlib import Path

import psutil


def language_servers(runtime: Path) -> list[psutil.Process]:
    """Returns the servers whose engines serve from `runtime`, oldest first."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if "dgemma_lsp" in process.cmdline() and process.environ().get("DGEMMA_RUNTIME_DIR") == str(runtime):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.create_time())
