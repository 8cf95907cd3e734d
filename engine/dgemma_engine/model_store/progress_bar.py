"""A download's progress in bytes: one line that a terminal overwrites, a line for every tenth elsewhere, or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TextIO

from dgemma_engine.model_store.entry import MB

_WIDTH = 24


class ProgressLines:
    """Prints one JSON object for every hundredth of a download: `num_bytes` that are there, `total_bytes` of the whole.

    Args:
        total_bytes: of the whole.
        stream: where to.
    """

    def __init__(self, total_bytes: int, stream: TextIO) -> None:
        self._total_bytes, self._stream = total_bytes, stream
        self._shown = -1

    def update(self, num_bytes: int) -> None:
        """Prints that `num_bytes` are there."""
        step = 100 * num_bytes // self._total_bytes
        if step != self._shown:
            self._shown = step
            self._stream.write(json.dumps({"num_bytes": num_bytes, "total_bytes": self._total_bytes}) + "\n")
            self._stream.flush()


class ProgressBar:
    """Shows how far a download is.

    Args:
        name: of what is downloaded.
        total_bytes: of the whole.
        stream: where to.
        clock: seconds that never go backwards.
    """

    def __init__(self, name: str, total_bytes: int, stream: TextIO, clock: Callable[[], float]) -> None:
        self._name, self._total_bytes, self._stream, self._clock = name, total_bytes, stream, clock
        self._is_terminal = stream.isatty()
        self._start: tuple[float, int] | None = None
        self._shown = -1

    def update(self, num_bytes: int) -> None:
        """Shows that `num_bytes` are there."""
        if num_bytes == 0:
            return
        now, share = self._clock(), min(1.0, num_bytes / self._total_bytes)
        if self._start is None:
            self._start = (now, num_bytes)
        step = int(share * (100 if self._is_terminal else 10))
        if step == self._shown:
            return
        self._shown = step
        elapsed_s, fetched = now - self._start[0], num_bytes - self._start[1]
        rate = f", {fetched / elapsed_s / MB:.1f} MB/s" if elapsed_s > 0 and fetched else ""
        text = f"{self._name}: {num_bytes / MB:.1f} of {self._total_bytes / MB:.1f} MB{rate}"
        if self._is_terminal:
            full = int(share * _WIDTH)
            self._write(f"\r[{'#' * full}{'.' * (_WIDTH - full)}] {text}\x1b[K")
        else:
            self._write(f"{text}\n")

    def close(self) -> None:
        """Ends the line."""
        if self._is_terminal and self._shown >= 0:
            self._write("\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The stream has no reader any more: the download goes on.
            pass
