"""Passes over canvases that runs have requested and not read yet: pending ones are made together.

Runs take turns (`scheduling.cooperative`). A run that requests a pass continues at its next turn; until then others may
request theirs. The first run that reads its states makes the passes of all, without waiting for further ones. The pass
of a dropped run is dropped with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor

from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.diffusion_model import DiffusionModel

_MOST_CANVASES = 8


class PendingPass:
    """A requested pass; the queue makes it while a reference to this object exists.

    Args:
        given: what to run.

    Attributes:
        given: see above.
        hidden_1LD: its result; None until it is made.
    """

    def __init__(self, given: CanvasPass) -> None:
        self.given = given
        self.hidden_1LD: Tensor | None = None


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
        """Notes a pass; its cache must not change until it is read or dropped."""
        pending = PendingPass(given)
        self._waiting.append(weakref.ref(pending))
        return pending

    def read(self, pending: PendingPass) -> Tensor:
        """Returns a pass's hidden states, [1, L, D]; makes it, together with other pending ones, if not made yet."""
        if pending.hidden_1LD is None:
            together = self._together(pending)
            if len(together) > 1:
                try:
                    self._make(together)
                except Exception as error:
                    # One of the others may be the cause: each then fails, or not, in its own run.
                    if self._report is not None:
                        self._report(f"a pass over {len(together)} canvases failed, each is run alone: {error!r}")
                    self._make([pending])
            else:
                self._make(together)
        assert pending.hidden_1LD is not None
        return pending.hidden_1LD

    def _make(self, together: list[PendingPass]) -> None:
        given = [each.given for each in together]
        if len(given) == 1:
            (only,) = given
            made = [
                self._model.decode(
                    only.canvas_1L,
                    only.cache,
                    soft_BLD=only.soft_1LD,
                    positions_BL=only.positions_1L,
                    attention_masks=only.attention_masks,
                )
            ]
        else:
            made = self._model.decode_together(given)
        for each, hidden_1LD in zip(together, made, strict=True):
            each.hidden_1LD = hidden_1LD
        self.num_made, self.num_passes = self.num_made + len(made), self.num_passes + 1

    def _together(self, pending: PendingPass) -> list[PendingPass]:
        """Returns a pass, first, and those that wait and may be made with it, in the order in which they came."""
        waiting = [each for ref in self._waiting if (each := ref()) is not None and each.hidden_1LD is None]
        self._waiting = [weakref.ref(each) for each in waiting]
        chosen, longest, adapter = [pending], pending.given.num_positions, pending.given.cache.adapter
        for each in waiting:
            if each is pending or each.given.cache.adapter is not adapter:
                continue
            length = max(longest, each.given.num_positions)
            # Each may be filled up to the longest.
            if len(chosen) < _MOST_CANVASES and (len(chosen) + 1) * length <= self._model.most_together:
                chosen.append(each)
                longest = length
        return chosen
