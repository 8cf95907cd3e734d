"""Where answers came from and what of the engine's work was used: counts, never text.

Counted by `Sources`; read through `Tally.counts`, which the request `dgemma/tally` answers with. What the user's
statistics are made of is passed on as events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from dgemma_lsp.metrics.events import Answered, Event, Source, StepsSpent, StepsUsed

METHOD = "dgemma/tally"


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of one session.

    Attributes:
        report: told what the user's statistics are made of.
        sources: questions answered, by what answered them; empty answers included.
        superseded: questions that were answered with an error, because a newer one came or the client took them back.
        offered: answers with something to show.
        steps: denoising steps spent on questions; of those that were given up, as far as drafts told.
        speculative_steps: denoising steps spent on what nobody had asked yet.
        steps_used: of `steps`, those behind answers that were given.
        speculative_steps_used: of `speculative_steps`, likewise.
        adopted: questions that waited for the work on an earlier one.
        prepared: completions prepared behind a shown one.
        prepared_used: of those, how many served.
    """

    report: Callable[[Event], None]
    sources: dict[str, int] = field(default_factory=lambda: {source.value: 0 for source in Source})
    superseded: int = 0
    offered: int = 0
    steps: int = 0
    speculative_steps: int = 0
    steps_used: int = 0
    speculative_steps_used: int = 0
    adopted: int = 0
    prepared: int = 0
    prepared_used: int = 0

    def answered(self, source: Source, *, has_item: bool, total_ms: float, stages_ms: Mapping[str, float]) -> None:
        """Counts a question that was answered, and where its time went."""
        self.sources[source.value] += 1
        self.offered += has_item
        self.report(Answered(source=source, shown=has_item, total_ms=total_ms, stages_ms=stages_ms))

    def spent(self, num_steps: int, *, speculative: bool) -> None:
        """Counts the engine's work on one question, when it has ended."""
        if speculative:
            self.speculative_steps += num_steps
        else:
            self.steps += num_steps
        self.report(StepsSpent(steps=num_steps))

    def used(self, num_steps: int, *, speculative: bool, has_item: bool) -> None:
        """Counts the work behind an answer, when it is given for the first time; the user has it only with an item."""
        if speculative:
            self.speculative_steps_used += num_steps
            self.prepared_used += 1
        else:
            self.steps_used += num_steps
        if has_item:
            self.report(StepsUsed(steps=num_steps))

    def counts(self) -> dict[str, int | dict[str, int]]:
        """Returns everything, ready for JSON."""
        counts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "report"}
        return counts | {"sources": dict(self.sources)}
