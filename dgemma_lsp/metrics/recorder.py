"""One window's counting: events and texts in, additions to the file a few seconds later. Never raises.

Switched off it counts nothing, remembers nothing and touches no file.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from dgemma_lsp.metrics.acceptance import Suggestions
from dgemma_lsp.metrics.aggregate import Stats
from dgemma_lsp.metrics.events import Event
from dgemma_lsp.metrics.report import to_figures
from dgemma_lsp.metrics.store import StatsBusy, StatsFile
from dgemma_lsp.postprocess.pipeline import Completion

_log = logging.getLogger(__name__)

_FLUSH_AFTER_S = 5.0
_LAST_TRIES, _PAUSE_S = 5, 0.02


class StatsRecorder:
    """Counts while it is switched on.

    Args:
        file: what the counts are added to.
        clock: seconds that never go backwards.
        today: the date, as `2026-11-21`.
    """

    def __init__(self, file: StatsFile, *, clock: Callable[[], float], today: Callable[[], str]) -> None:
        self._file = file
        self._clock = clock
        self._today = today
        self._on = False
        self._counted = Stats()
        self._suggestions = Suggestions(self.report, clock=clock)
        self._flush: asyncio.TimerHandle | None = None
        self._warned = False

    def switch(self, *, on: bool) -> None:
        """Starts or stops counting; what was counted and not yet written is forgotten when it stops."""
        if on != self._on:
            self._on = on
            self._forget()

    def report(self, event: Event) -> None:
        """Counts what happened."""
        if not self._on:
            return
        if not self._counted:
            self._counted.since = self._today()
        self._counted.add(event)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self.flush)

    def offer(self, uri: str, text: str, completions: Sequence[Completion]) -> list[int] | None:
        """Takes note of a suggestion in its forms; returns the numbers to accept them with, None while switched off."""
        return self._suggestions.offer(uri, text, completions) if self._on else None

    def accept(self, number: int, text_of: Callable[[str], str | None]) -> None:
        """Takes note that a client has accepted the suggestion of that number."""
        if self._on:
            self._suggestions.accept(number, text_of)

    def change(self, uri: str, old: str, new: str) -> None:
        """Takes note that a document has changed from `old` to `new`."""
        if self._on:
            self._suggestions.change(uri, old, new)

    def close(self, uri: str) -> None:
        """Takes note that a document is closed."""
        if self._on:
            self._suggestions.close(uri)

    def figures(self) -> dict[str, Any]:
        """Returns what `dgemma-lsp stats` says, of all windows.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file holds something else; the message says what to do.
        """
        self.flush()
        stats = self._file.read()
        # What could not be added to the file yet.
        stats.merge(self._counted)
        return to_figures(stats)

    def end(self) -> None:
        """Writes what is left; nothing is counted afterwards."""
        if self._on:
            self._suggestions.end()
            for _ in range(_LAST_TRIES):
                self.flush()
                if not self._counted:
                    break
                time.sleep(_PAUSE_S)
        self.switch(on=False)

    def flush(self) -> None:
        """Adds what was counted to the file; what cannot be added now is added later."""
        self._cancel()
        self._suggestions.settle()
        self._cancel()
        if not self._counted:
            return
        try:
            self._file.add(self._counted)
        except StatsBusy:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self.flush)
        except (OSError, ValueError) as error:
            if not self._warned:
                self._warned = True
                _log.warning("counts cannot be kept (%s)", error)
        else:
            self._counted = Stats()

    def _forget(self) -> None:
        self._cancel()
        self._counted = Stats()
        self._suggestions = Suggestions(self.report, clock=self._clock)

    def _cancel(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
