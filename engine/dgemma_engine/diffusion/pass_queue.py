"""Passes over canvases that runs have requested and not read yet: pending ones are made together.

Runs take turns (`scheduling.cooperative`). A run that requests a pass continues at its next turn; until then others may
request theirs. The first run that reads its states makes the passes of all, without waiting for further ones. The pass
of a dropped run is dropped with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel

_MOST_CANVASES = 8


@dataclass(eq=False, kw_only=True)
class PendingPass:
    """A requested pass; the queue makes it while a reference to this object exists.

    Attributes:
        given: what to run.
        hidden_1LD: its result; None until it is made.
    """

    given: CanvasPass
    hidden_1LD: Tensor | None = None


class PassQueue:
    """The passes that wait for one model; for one thread.

    Args:
        model: makes them.
        report: called with a sentence when a pass over several canvases failed; None reports nothing.

    Attributes:
        num_made: canvases that were run.
        num_passes: times that the model was run for them.
    """

    def __init__(self, model: DiffusionModel, *, report: Callable[[str], None] | None = None) -> None:
        self._model, self._report = model, report
        self._waiting: list[weakref.ref[PendingPass]] = []
        self.num_made = self.num_passes = 0

    def add(self, given: CanvasPass) -> PendingPass:
        """Adds a pass; its cache must not change until it is read or dropped."""
        pending = PendingPass(given=given)
        self._waiting.append(weakref.ref(pending))
        return pending

    def read(self, pending: PendingPass) -> Tensor:
        """Returns a pass's hidden states, [1, L, D]; makes it, and what waits beside it, if it is not made yet."""
        if pending.hidden_1LD is not None:
            return pending.hidden_1LD
        waiting = [each for ref in self._waiting if (each := ref()) is not None and each.hidden_1LD is None]
        self._waiting = [weakref.ref(each) for each in waiting]
        chosen, adapter = [pending], pending.given.cache.adapter
        for each in waiting:
            if each is pending or each.given.cache.adapter is not adapter or len(chosen) == _MOST_CANVASES:
                continue
            # Each may be padded to the longest.
            longest = max(one.given.num_positions for one in (*chosen, each))
            if (len(chosen) + 1) * longest <= self._model.most_together:
                chosen.append(each)
        made: list[Tensor] = []
        if len(chosen) > 1:
            try:
                made = self._model.decode_together([each.given for each in chosen])
            except Exception as error:
                # One of the others may be the cause: each then fails, or not, in its own run.
                if self._report is not None:
                    self._report(f"a pass over {len(chosen)} canvases failed, each is run alone: {error!r}")
                chosen = [pending]
        if not made:
            given = pending.given
            made = [
                self._model.decode(
                    given.canvas_1L,
                    given.cache,
                    soft_BLD=given.soft_1LD,
                    positions_BL=given.positions_1L,
                    attention_masks=given.attention_masks,
                )
            ]
        for each, hidden_1LD in zip(chosen, made, strict=True):
            each.hidden_1LD = hidden_1LD
        self.num_made, self.num_passes = self.num_made + len(made), self.num_passes + 1
        return made[0]
