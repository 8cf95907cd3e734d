"""Admission of requests: whether anything is offered in a document, and how long a request waits for the next key.

Settings, paused languages and private files -> why nothing is offered, if so. Typing cadence and engine latency ->
seconds before the engine is asked. The time is an argument.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from dgemma_engine.bounded_store import BoundedStore

from dgemma_lsp.completion.cache import EngineAnswer
from dgemma_lsp.documents.notebooks import Notebooks
from dgemma_lsp.documents.store import Document
from dgemma_lsp.privacy.policy import Privacy
from dgemma_lsp.request import Request
from dgemma_lsp.settings.language_ids import canonical_id
from dgemma_lsp.settings.settings import SECTION, Settings

OFF = f"switched off by {SECTION}.enabled"

# At least as many characters as any rule about first lines reads.
HEAD_CHARS = 8_192
# Documents whose answers are kept: more than anybody types in within a second.
_MOST_KEPT = 32
# A link or an ignore file may change meanwhile.
_RECHECK_S = 1.0


class CompletionGate:
    """Decides whether anything is offered in a document; the reason against it is one line for a person.

    Args:
        notebooks: the open notebooks.
        privacy: decides which files are private.
        clock: seconds that never go backwards.

    Attributes:
        settings: those in force.
    """

    def __init__(self, notebooks: Notebooks, privacy: Privacy, *, clock: Callable[[], float]) -> None:
        self.settings = Settings()
        self._notebooks = notebooks
        self._privacy = privacy
        self._clock = clock
        # By document: what the answer depends on, until when it holds, and the answer.
        self._known: BoundedStore[str, tuple[tuple[Settings, str, str], float, str | None]] = BoundedStore(_MOST_KEPT)

    def why_not_complete(self, subject: Document | Request) -> str | None:
        """Returns why no ghost text is offered in a document, or at a question with the beginning of its text.

        The answer for the same settings and first lines is kept for a second, since each key asks for it.
        """
        asked, now_s = (self.settings, subject.language, subject.text[:HEAD_CHARS]), self._clock()
        known = self._known.get(subject.uri)
        if known is not None and known[0] == asked and now_s < known[1]:
            return known[2]
        paused = {canonical_id(language) for language in self.settings.paused_languages}
        if paused and canonical_id(subject.language) in paused:
            why = f"{subject.language} is paused by {SECTION}.pausedLanguages"
        else:
            why = self.why_not(subject)
        self._known.put(subject.uri, (asked, now_s + _RECHECK_S, why))
        return why

    def why_not(self, subject: Document | Request) -> str | None:
        """Returns why nothing is done in a document, not even by hand."""
        if not self.settings.enabled:
            return OFF
        # A cell is as private as the file that it is kept in.
        uri = self._notebooks.holders.get(subject.uri, subject.uri)
        return self._privacy.why_not_complete(uri, subject.language, subject.text[:HEAD_CHARS])

    def forget(self) -> None:
        """Reads the ignore files again when they are next needed."""
        self._known.clear()
        self._privacy.forget()


@dataclass(frozen=True, slots=True, kw_only=True)
class DebounceConfig:
    """Bounds of the wait.

    Attributes:
        pause_s: a gap from here on is a pause, and the key after it the first of a burst: small waits less often,
            large keeps the cadence of earlier bursts.
        repeat_s: gaps below this are a held key, faster than anyone types: the engine is not asked before it is
            released.
        longest_s: longest wait; 0 never waits.
        longest_slow_s: longest wait before an engine that takes longer than a gap is asked: small begins more runs that
            the next key cancels, large adds to every answer.
        weight: weight of the newest gap and latency in their averages: 1 keeps the last one only.
    """

    pause_s: float = 1.0
    repeat_s: float = 0.04
    longest_s: float = 0.3
    longest_slow_s: float = 0.08
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ValueError(f"{self.weight=} must be above 0 and at most 1")
        if not 0 <= self.repeat_s <= self.pause_s:
            raise ValueError(f"0 <= {self.repeat_s=} <= {self.pause_s=} must hold")
        if min(self.longest_s, self.longest_slow_s) < 0:
            raise ValueError(f"{self.longest_s=} and {self.longest_slow_s=} must not be negative")


class LatencyEstimate:
    """Exponential moving average of the engine's latencies."""

    def __init__(self, config: DebounceConfig) -> None:
        self._weight = config.weight
        self.mean_s = 0.0

    def learn(self, latency_s: float) -> None:
        """Adds one answer's latency."""
        self.mean_s += self._weight * (latency_s - self.mean_s) if self.mean_s else latency_s

    def exceeds(self, waited_s: float) -> None:
        """Adds the time of a cancelled request, as a lower bound: with a fast typist no request is answered."""
        if waited_s > self.mean_s:
            self.learn(waited_s)


class TypingCadence:
    """The gaps between the keys of one document."""

    def __init__(self, config: DebounceConfig) -> None:
        self._config = config
        self._last_s: float | None = None
        self._gap_s: float | None = None

    def key(self, now_s: float) -> None:
        """Records a key: an edit, or a question without an edit before it."""
        if self._last_s is not None:
            gap_s = now_s - self._last_s
            if gap_s >= self._config.pause_s:
                self._gap_s = None
            elif self._gap_s is None:
                self._gap_s = gap_s
            else:
                self._gap_s += self._config.weight * (gap_s - self._gap_s)
        self._last_s = now_s

    def wait_s(self, now_s: float, latency_s: float, *, said_nothing: bool = False) -> float:
        """Returns how long to wait before the engine is asked, in seconds from now on.

        0 for the first key after a pause, and while the engine answers in half of a gap. An engine that answers
        within a gap is asked so that its answer comes one and a half gaps after the key. A slower one cannot answer
        before the next key: it is asked after half of a gap, so that of quick keys only the last asks. After an empty
        answer and while a key is held, the engine is asked after one and a half gaps: one character later the answer
        is seldom another. The time that the client has waited since the key counts.

        Args:
            now_s: the clock.
            latency_s: mean latency of the engine; 0 if unknown.
            said_nothing: whether its last answer was empty.
        """
        gap_s = self._gap_s
        if self._last_s is None or gap_s is None:
            return 0.0
        if gap_s < self._config.repeat_s or said_nothing:
            wait_s = 1.5 * gap_s
        elif latency_s > gap_s:
            wait_s = min(gap_s / 2, self._config.longest_slow_s)
        elif latency_s <= gap_s / 2:
            return 0.0
        else:
            wait_s = 1.5 * gap_s - latency_s
        return max(0.0, min(wait_s, self._config.longest_s) - (now_s - self._last_s))


@dataclass(slots=True, kw_only=True)
class TypingState:
    """State of typing in one document.

    Attributes:
        cadence: of the keys.
        is_edited: whether an edit came since the last question.
        deleted: whether the last edit only took text away.
        said_nothing: whether the engine's last answer was empty, and no key was held back since.
        shown: the answer whose item is shown.
        speculation: timer that starts the speculative request.
    """

    cadence: TypingCadence
    is_edited: bool = False
    deleted: bool = False
    said_nothing: bool = False
    shown: EngineAnswer | None = None
    speculation: asyncio.TimerHandle | None = None

    def put_off(self) -> None:
        """Cancels the speculative request that is due."""
        if self.speculation is not None:
            self.speculation.cancel()
            self.speculation = None
