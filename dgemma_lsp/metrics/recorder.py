"""One window's events -> counts that are added to the user's file 5 seconds later. Counting never raises.

Switched off it adds nothing to the file and follows no suggestion; the counts of the session, in memory only, go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dgemma_lsp.metrics.acceptance import Suggestions
from dgemma_lsp.metrics.report import to_figures
from dgemma_lsp.metrics.stats import TOTAL, Source, Stats
from dgemma_lsp.metrics.store import StatsBusy, StatsFile
from dgemma_lsp.request import Completion

# The request that returns the counts of this session, for measurements.
TALLY = "dgemma/tally"

_log = logging.getLogger(__name__)

_SESSION_ONLY = (
    *("superseded", "adopted", "prepared", "prepared_used"),
    *("speculative_steps", "steps_used", "speculative_steps_used"),
)
_FLUSH_AFTER_S = 5.0
_LAST_TRIES, _PAUSE_S = 5, 0.02


class StatsRecorder:
    """Counts for the user while it is switched on, and for `session_counts` always.

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
        self._session: Counter[str] = Counter()
        self._counted = Stats()
        # Added up when they are written: no request waits for that.
        self._events: list[tuple[Mapping[str, int], Mapping[str, float]]] = []
        self._suggestions = Suggestions(self._add, clock=clock)
        self._flush: asyncio.TimerHandle | None = None
        self._warned = False

    def switch(self, *, on: bool) -> None:
        """Starts or stops counting; stopping drops the counts that are not written yet."""
        if on != self._on:
            self._on = on
            self._forget()

    def answered(self, source: Source, *, shown: bool, total_ms: float, timings_ms: Mapping[str, float]) -> None:
        """Counts a request that was answered, with a suggestion or with nothing.

        Args:
            source: what answered.
            shown: whether there was something to show.
            total_ms: from the request's arrival to its answer.
            timings_ms: the timings of the engine's answer; empty without one.
        """
        # Where the milliseconds went; the total alone where an earlier request's work was used.
        stages_ms: dict[str, float] = {}
        if shown:
            stages_ms[TOTAL] = total_ms
        if shown and source is Source.ENGINE:
            stages_ms |= {("engine" if stage == "total" else stage): spent for stage, spent in timings_ms.items()}
            elsewhere_ms = sum(stages_ms.get(stage, 0.0) for stage in ("start", "wait", "context", "engine"))
            stages_ms["server"] = max(total_ms - elsewhere_ms, 0.0)
        elif shown and source is not Source.IN_FLIGHT:
            stages_ms["server"] = total_ms
        self._add(
            {"requests": 1, f"answered_by_{source}": 1, "requests_answered_with_text": int(shown)},
            stages_ms,
        )

    def steps_spent(self, num_steps: int, *, speculative: bool) -> None:
        """Counts the denoising steps of one finished request; of a cancelled one those that its drafts reported."""
        self._add({"steps": num_steps, "speculative_steps": num_steps * speculative})

    def steps_used(self, num_steps: int, *, speculative: bool, shown: bool) -> None:
        """Counts the denoising steps of an answer that is given for the first time, as used only where it is shown."""
        self._add(
            {
                "used_steps": num_steps * shown,
                "steps_used": num_steps * (not speculative),
                "speculative_steps_used": num_steps * speculative,
                "prepared_used": int(speculative),
            }
        )

    def count(self, **counts: int) -> None:
        """Adds to counts that only the session's counts have: `superseded`, `adopted`, `prepared`."""
        self._session.update(counts)

    def session_counts(self) -> dict[str, int | dict[str, int]]:
        """Returns the counts of this session, ready for JSON.

        `sources`: requests answered, by what answered them, empty answers included. `superseded`: requests answered
        with an error, because a newer one came or the client cancelled them. `offered`: answers with something to show.
        `steps`, `speculative_steps`: denoising steps spent on requests, and ahead of them; `..._used`: of those, the
        steps of answers that were given. `adopted`: requests that waited for the work on an earlier one.
        `prepared`: completions asked for ahead; `prepared_used`: of those, how many served.
        """
        counts = self._session
        return {
            "sources": {source.value: counts[f"answered_by_{source}"] for source in Source},
            "offered": counts["requests_answered_with_text"],
            "steps": counts["steps"] - counts["speculative_steps"],
            **{name: counts[name] for name in _SESSION_ONLY},
        }

    def offer(self, uri: str, text: str, completions: Sequence[Completion]) -> list[int] | None:
        """Records a suggestion in its forms; returns the numbers that report its acceptance, None when switched off."""
        return self._suggestions.offer(uri, text, completions) if self._on else None

    def accept(self, number: int, text_of: Callable[[str], str | None]) -> None:
        """Records that a client has accepted the suggestion of that number."""
        if self._on:
            self._suggestions.accept(number, text_of)

    def accept_part(self, number: int, num_units: int) -> None:
        """Records that a client has accepted the beginning of the suggestion of that number, in UTF-16 code units."""
        if self._on:
            self._suggestions.accept_part(number, num_units)

    def displayed(self, number: int) -> None:
        """Counts that a client has shown the suggestion of that number."""
        if self._on:
            self._suggestions.display(number)

    def change(self, uri: str, old: str, new: str) -> None:
        """Follows the suggestions of a document through a change from `old` to `new`."""
        if self._on:
            self._suggestions.change(uri, old, new)

    def close(self, uri: str) -> None:
        """Drops the suggestions of a document that is closed."""
        if self._on:
            self._suggestions.close(uri)

    def figures(self) -> dict[str, Any]:
        """Returns the figures of `dgemma-lsp stats`, of all windows.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file holds something else; the message says what to do.
        """
        self.flush()
        stats = self._file.read()
        # Counts that could not be added to the file yet.
        stats.merge(self._counted)
        return to_figures(stats)

    def end(self) -> None:
        """Writes the remaining counts; nothing is counted afterwards."""
        if self._on:
            self._suggestions.end()
            for _ in range(_LAST_TRIES):
                self.flush()
                if not self._counted:
                    break
                time.sleep(_PAUSE_S)
        self.switch(on=False)

    def flush(self) -> None:
        """Adds the counts to the file; those that cannot be added now are added later."""
        self._cancel()
        self._suggestions.settle()
        self._cancel()
        if self._events and not self._counted:
            self._counted.since = self._today()
        for counts, stages_ms in self._events:
            self._counted.add(counts, stages_ms)
        self._events.clear()
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

    def _add(self, counts: Mapping[str, int], stages_ms: Mapping[str, float] = MappingProxyType({})) -> None:
        self._session.update(counts)
        if not self._on:
            return
        self._events.append((counts, stages_ms))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self.flush)

    def _forget(self) -> None:
        self._cancel()
        self._counted = Stats()
        self._events.clear()
        self._suggestions = Suggestions(self._add, clock=self._clock)

    def _cancel(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
