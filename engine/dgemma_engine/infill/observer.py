"""What an observer of one request receives: hooks called on the device thread. `tracing` implements them.

A hook changes nothing and draws no random numbers: the answer is the same without an observer.

Shape legend: T judged tokens of a pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from dgemma_engine.diffusion import denoiser

if TYPE_CHECKING:
    from torch import Tensor

    from dgemma_engine.checkpoint.calibration import Calibration
    from dgemma_engine.infill.candidate import Proposal, Ranked
    from dgemma_engine.infill.hypotheses import Hypothesis, RowReading
    from dgemma_engine.infill.task import Hole


class WritingObserver(Protocol):
    """Receives what the causal mode writes for one candidate."""

    def passed(
        self, token_ids: Sequence[int], logits_TV: Tensor, *, num_agreed: int, draft_id: int, ended: bool
    ) -> None:
        """Receives a forward pass.

        Args:
            token_ids: the decided tokens in order, including the one that ends the middle.
            logits_TV: their logits, float; -inf where a token is suppressed.
            num_agreed: number of leading tokens that equal the draft.
            draft_id: the draft's first differing token; -1 at the draft's end.
            ended: whether the last token ends the middle.
        """
        ...

    def offered(self, text: str) -> None:
        """Receives the candidate made of the passes; empty for none."""
        ...


class Observer(denoiser.StepObserver, Protocol):
    """Receives the course of one request, from the prompt to the ranked candidates."""

    def prompt_built(self, hole: Hole, *, text_of: Callable[[int], str | None], name_of: Callable[[int], str]) -> None:
        """Receives the prompt in token ids, and the text or else the name of a token."""
        ...

    def began(self, hypotheses: Sequence[Hypothesis], written_ids: Sequence[int], steps_limit: int) -> None:
        """Receives a new canvas: its rows, tokens settled by earlier canvases, most steps."""
        ...

    def read(self, readings: Mapping[int, RowReading], texts: Mapping[int, str]) -> None:
        """Receives the tokens and the text of rows, by index, after a step."""
        ...

    def writing(self, forced_ids: Sequence[int], draft_ids: Sequence[int]) -> WritingObserver:
        """Returns the observer of a candidate that the causal mode begins to write."""
        ...

    def weighed(
        self,
        proposals: Iterable[Proposal],
        ranked: Sequence[Ranked],
        *,
        is_shown: bool,
        added_errors: Callable[[str, int], int],
        calibration: Calibration,
    ) -> None:
        """Receives all candidates, the ranked ones with their scores, and whether the first is shown."""
        ...
