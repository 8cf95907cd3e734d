"""Times of drafts and answers -> whether a proxy on the way holds drafts back until their answer. Pure.

A network that stalls, or a machine under load, delivers drafts late too, but then their answer is as late. Where the
answer comes on time and its drafts come with it, several times in a row, a proxy buffers them.
"""

from __future__ import annotations

from dataclasses import dataclass

# Drafts that precede their answer by less than this are too short to notice.
_LEAST_AHEAD_MS = 50.0
# Shares of the time from a draft to its answer at the engine: below the first they came together, from the second on
# apart; from the third on the network delayed the answer itself.
_TOGETHER_SHARE, _APART_SHARE, _STALLED_SHARE = 0.2, 0.5, 0.5
_NUM_TOGETHER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftLead:
    """How long the first draft of a question came before its answer.

    Attributes:
        made_ms: at the engine.
        came_ms: here.
    """

    made_ms: float
    came_ms: float


class BufferingDetector:
    """Counts the answers in a row that came on time with drafts that did not.

    Attributes:
        is_held_back: whether a proxy holds drafts back; False until that is sure.
    """

    def __init__(self) -> None:
        self.is_held_back = False
        self._num_together = 0

    def learn(self, lead: DraftLead, network_ms: float) -> None:
        """Adds an answer; ignores one that came too soon after its draft, or late itself.

        Args:
            lead: of its first draft.
            network_ms: the network's part of its time.
        """
        if lead.made_ms < _LEAST_AHEAD_MS:
            return
        if lead.came_ms >= _APART_SHARE * lead.made_ms:
            self._num_together, self.is_held_back = 0, False
        elif lead.came_ms < _TOGETHER_SHARE * lead.made_ms and network_ms < _STALLED_SHARE * lead.made_ms:
            self._num_together += 1
            self.is_held_back = self._num_together >= _NUM_TOGETHER
