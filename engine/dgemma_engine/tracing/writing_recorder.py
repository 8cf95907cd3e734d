"""The recording of the causal mode, pass by pass: hooks of `autoregressive` in, a message out; part of `recorder`.

Its hooks change nothing and draw no random numbers. Loads no torch by itself.

Shape legend: T judged tokens of a pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dgemma_engine.protocol.trace_messages import PassTrace, WritingTrace

if TYPE_CHECKING:
    from torch import Tensor

# Likeliest tokens kept per token.
_MOST_OTHERS = 4


class WritingRecorder:
    """Records one candidate of the causal mode.

    Args:
        forced_ids: tokens it has to begin with.
        draft_ids: the guess that is checked; may be empty.
        clock: seconds that never go backwards.
    """

    def __init__(self, forced_ids: Sequence[int], draft_ids: Sequence[int], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._forced_ids, self._draft_ids = tuple(forced_ids), tuple(draft_ids)
        self._passes: list[PassTrace] = []
        self._text = ""
        self._since_s = clock()

    def passed(
        self, token_ids: Sequence[int], logits_TV: Tensor, *, num_agreed: int, draft_id: int, ended: bool
    ) -> None:
        """Records a forward pass.

        Args:
            token_ids: those it decided, in their order, the one that ends the middle included.
            logits_TV: theirs; whatever may not be written is -inf.
            num_agreed: how many of them, from the first, equal the draft's.
            draft_id: the draft's first token that differs; -1 if the draft had ended.
            ended: whether the last of them ends the middle.
        """
        now_s = self._clock()
        logprobs_TV = logits_TV.float().log_softmax(-1)
        others = logprobs_TV.topk(min(_MOST_OTHERS, logprobs_TV.shape[-1]))
        probabilities_TV = logprobs_TV.exp()
        # A suppressed token has probability 0, and 0 * -inf is NaN.
        entropy_T = -(probabilities_TV * logprobs_TV.clamp_min(-1e4)).sum(-1)
        one = PassTrace(
            elapsed_ms=(now_s - self._since_s) * 1e3,
            ids=tuple(token_ids),
            entropy=tuple(entropy_T.tolist()),
            other_ids=tuple(map(tuple, others.indices.tolist())),
            other_probabilities=tuple(map(tuple, others.values.exp().tolist())),
            num_agreed=num_agreed,
            draft_id=draft_id,
            ended=ended,
        )
        self._passes.append(one)
        self._since_s = self._clock()

    def offered(self, text: str) -> None:
        """Records the candidate made of the passes.

        Args:
            text: the candidate; empty if it is none.
        """
        self._text = text

    def trace(self) -> WritingTrace:
        """Returns the recording."""
        return WritingTrace(
            forced_ids=self._forced_ids, draft_ids=self._draft_ids, passes=tuple(self._passes), text=self._text
        )
