"""What the engine said lately: an answer serves a later question too, as long as what was typed since begins it.

Pure bookkeeping: knows no engine and no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.completion.fingerprint import Place, typed_since
from dgemma_lsp.request import Request

_Key = tuple[Place, bool]
"""Where an answer was asked for, and whether it is unlikely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer and where it was asked for.

    Attributes:
        place: where.
        infill: what the engine said.
        speculative: whether nobody had asked yet.
    """

    place: Place
    infill: Infill
    speculative: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """What it proposes, best first, each once."""
        others = (candidate.text for candidate in self.infill.candidates)
        return tuple(dict.fromkeys(text for text in (self.infill.text, *others) if text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An answer that may serve.

    Attributes:
        answer: the answer.
        typed: what was typed since it was asked for, with `\\n` line ends; empty at the same place.
        num_typed: characters of the document that are.
    """

    answer: Answer
    typed: str
    num_typed: int


class AnswerStore:
    """The last answers of all documents, least recently used out.

    Args:
        num_answers: how many are kept; 0 keeps none, large remembers text that was typed and deleted long ago.
    """

    def __init__(self, *, num_answers: int = 100) -> None:
        if num_answers < 0:
            raise ValueError(f"{num_answers=} must not be negative")
        self._num_answers = num_answers
        self._answers: OrderedDict[_Key, Answer] = OrderedDict()
        self._used: set[_Key] = set()

    def put(self, answer: Answer) -> None:
        """Stores an answer and replaces the one of the same place that is equally likely.

        An unlikely answer and the empty one that an automatic question gets there are kept side by side.
        An answer of nothing is kept as well, unless the engine was not given the time to find one.
        """
        if not answer.infill.text and answer.infill.finish in {Finish.CANCELLED, Finish.DEADLINE}:
            return
        self._drop(_key(answer))
        self._answers[_key(answer)] = answer
        while len(self._answers) > self._num_answers:
            self._drop(next(iter(self._answers)))

    def has(self, place: Place) -> bool:
        """Whether an answer that serves automatic questions is stored for exactly this place."""
        return (place, False) in self._answers

    def matches(self, request: Request) -> Iterator[Match]:
        """Yields what may serve a question, most recently used first: nothing but typing lies between.

        Of what was typed, the answer's own texts may say no more than the beginning: an answer of nothing only serves
        at its own place.
        """
        place = Place.of(request)
        for answer in reversed(list(self._answers.values())):
            num_typed = request.cursor - answer.place.offset
            if not 0 <= num_typed <= min(2 * max(map(len, answer.texts), default=0), request.offset):
                continue
            typed = typed_since(request.offset - num_typed, request.text, request.offset)
            begins = not typed or any(text.startswith(typed) for text in answer.texts)
            if begins and answer.place.leads_to(place, request.text, skipped=request.skipped):
                yield Match(answer=answer, typed=typed, num_typed=num_typed)

    def use(self, answer: Answer) -> bool:
        """Takes note that an answer serves, so that it is kept longest; returns whether it does for the first time."""
        key = _key(answer)
        if self._answers.get(key) is not answer:
            return False
        self._answers.move_to_end(key)
        is_first = key not in self._used
        self._used.add(key)
        return is_first

    def forget(self, uri: str) -> None:
        """Drops the answers of one document."""
        for key in [key for key in self._answers if key[0].uri == uri]:
            self._drop(key)

    def clear(self) -> None:
        """Drops all answers."""
        self._answers.clear()
        self._used.clear()

    def _drop(self, key: _Key) -> None:
        self._answers.pop(key, None)
        self._used.discard(key)


def _key(answer: Answer) -> _Key:
    return answer.place, answer.infill.unlikely
