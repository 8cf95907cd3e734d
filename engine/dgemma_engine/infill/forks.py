"""Where the causal mode was least sure: other ways to go on from a middle that was written greedily.

Receives the passes of `autoregressive.write` and keeps, of each token, the likeliest other one and the probability that
the middle ends there. Knows token ids and logits; knows no model and no text.

Shape legend: T judged tokens of a pass, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Another way to go on.

    Attributes:
        place: how many tokens of the middle it shares.
        token_id: the token it goes on with; None where it ends.
        logprob: of the shared tokens and of that step, nats.
    """

    place: int
    token_id: int | None
    logprob: float


class Forks:
    """Collects the forks of one middle; a `WritingObserver`.

    Args:
        num_given: tokens the middle has to begin with; no pass decides them.
        end_ids: tokens that end a middle, or that the suffix begins with.
    """

    def __init__(self, num_given: int, end_ids: Collection[int]) -> None:
        self._end_ids = sorted(end_ids)
        self._num_decided, self._logprob = num_given, 0.0
        self._found: list[Fork] = []

    def passed(
        self, token_ids: Sequence[int], logits_TV: Tensor, *, num_agreed: int, draft_id: int, ended: bool
    ) -> None:
        """See `WritingObserver.passed`."""
        logprobs_TV = logits_TV.float().log_softmax(-1)
        end_T = logprobs_TV[:, self._end_ids].logsumexp(-1).tolist() if self._end_ids else [-math.inf] * len(token_ids)
        chosen_T1 = torch.tensor(token_ids, device=logits_TV.device)[:, None]
        own_T = logprobs_TV.gather(-1, chosen_T1)[:, 0].tolist()
        logprobs_TV[:, self._end_ids] = -math.inf
        others = logprobs_TV.scatter(-1, chosen_T1, -math.inf).max(-1)
        last = len(token_ids) - 1
        for index, (other, other_id) in enumerate(zip(others.values.tolist(), others.indices.tolist(), strict=True)):
            self._add(other_id, other)
            if not (ended and index == last):
                self._add(None, end_T[index])
                self._num_decided += 1
                self._logprob += own_T[index]

    def offered(self, text: str) -> None:
        """See `WritingObserver.offered`."""

    def likeliest(self, *, least_logprob: float) -> list[Fork]:
        """Returns the forks of at least this log-probability, best first; -inf returns all, 0 none."""
        likely = [fork for fork in self._found if fork.logprob >= least_logprob]
        return sorted(likely, key=attrgetter("logprob"), reverse=True)

    def _add(self, token_id: int | None, logprob: float) -> None:
        self._found.append(Fork(place=self._num_decided, token_id=token_id, logprob=self._logprob + logprob))
