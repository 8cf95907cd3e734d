"""Questions of language servers -> their texts: pieces of an earlier question are put together again.

Questions are kept for the caller and session that sent them, and found by their sum, so that no pieces are taken from
another caller's text. They are kept in memory only, bounded in number and size.
"""

from __future__ import annotations

from collections.abc import Sequence

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.protocol.remote_messages import BASE_UNKNOWN, QuestionText
from dgemma_engine.protocol.text_delta import Piece, apply_delta, length_of

_NUM_SESSIONS = 256
_NUM_OF_SESSION = 8
_MAX_KEPT_CHARS = 16 * 2**20

_Questions = BoundedStore[str, str]


class KeptQuestions:
    """The last questions of each session, least recently used sessions out.

    Args:
        max_chars: most characters of one question.
        num_sessions: most sessions: small makes clients send whole texts again, large costs memory.
    """

    def __init__(self, *, max_chars: int, num_sessions: int = _NUM_SESSIONS) -> None:
        self._max_chars = max_chars
        self._kept: BoundedStore[str, _Questions] = BoundedStore(num_sessions, max_weight=_MAX_KEPT_CHARS)

    def restore(self, owner: str, base: str, pieces: Sequence[Piece], wanted_sum: str) -> str:
        """Returns the text of a question and keeps it.

        Args:
            owner: caller and session.
            base: sum of the earlier question that pieces are copied from; empty where none are.
            pieces: see `text_delta`.
            wanted_sum: of the text.

        Raises:
            Refusal: 409 if the earlier question is not kept or the text is another; 413 if it is too long; 400 if the
                pieces do not fit.
        """
        questions = self._kept.get(owner) or BoundedStore(_NUM_OF_SESSION)
        earlier = questions.get(base) if base else ""
        if earlier is None:
            raise Refusal(status=BASE_UNKNOWN, message="The earlier question (base) is not kept; send the whole one.")
        # Before it is put together: a piece may be copied any number of times.
        if length_of(pieces) > self._max_chars:
            raise Refusal(status=413, message=f"The question is longer than {self._max_chars} characters.")
        try:
            question = QuestionText.read(apply_delta(earlier, pieces))
        except ValueError:
            raise Refusal(status=400, message="The pieces do not fit the earlier question.") from None
        if question.sum != wanted_sum:
            raise Refusal(
                status=BASE_UNKNOWN, message="The pieces make another question than the sum says; send the whole one."
            )
        questions.use(base)
        questions.put(question.sum, question.text)
        self._kept.put(owner, questions, weight=sum(len(text) for _, text in questions.items()))
        return question.text
