"""Load progress of the engine -> one line on a terminal, redrawn in place."""

from __future__ import annotations

from typing import TextIO

from dgemma_engine.protocol.status_messages import Progress


class ProgressLine:
    """One line on a terminal with the percentage that is loaded; writes nothing where `out` is no terminal.

    Args:
        out: where to write.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = False

    def show(self, progress: Progress) -> None:
        """Redraws the line; erases it once loading is over."""
        if not self._out.isatty():
            return
        loading = progress.percent < 100 and progress.state.value == "loading"
        if loading or self._drawn:
            text = f"loading the model: {progress.percent} % {progress.message}"[:78] if loading else ""
            self._out.write(f"\r\x1b[2K{text}")
            self._out.flush()
            self._drawn = loading
