"""The engine's last answers: one serves as long as the text typed since it was requested is a prefix of it.

The engine has shaped an answer for the position where it was asked for, so that ghost text does not change its shape
under typing. A position is kept as a fingerprint: hashes of the text near the cursor, which tell whether a later text
is the same one with something typed. Pure bookkeeping: no engine, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.postprocess.cursor_context import CursorContext, extent_of, normalize_newlines
from dgemma_engine.postprocess.shape import shape_completion
from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.request import Completion, Request, Trigger, as_if_accepted, completion_at

_CLOSERS = ")]}\"'`"
_MOST_CLOSERS = 8
# More than an answer depends on.
_CHARS_EACH_SIDE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorFingerprint:
    """A cursor in a text, with hashes of the text around it instead of the text.

    Attributes:
        uri: names the document.
        offset: the cursor, in code points from the start of the text.
        before: hash of the 64 Ki characters before the cursor; valid within this process.
        closers: the first brackets and quotes right after the cursor.
        after: hash of the 64 Ki characters that follow them, and of how many follow.
        elsewhere: hash of what the model sees before and after the document: other cells of a notebook.
    """

    uri: str
    offset: int
    before: int
    closers: str
    after: int
    elsewhere: int = 0

    @classmethod
    def of(cls, request: Request) -> Self:
        """Returns the fingerprint of a question's cursor."""
        elsewhere = hash((request.above, request.below)) if request.above or request.below else 0
        skipped, beyond = request.skipped, request.beyond
        return cls.at(request.uri, request.text, request.cursor, elsewhere=elsewhere, skipped=skipped, beyond=beyond)

    @classmethod
    def at(cls, uri: str, text: str, cursor: int, *, elsewhere: int, skipped: int = 0, beyond: int = 0) -> Self:
        """Returns the fingerprint of an offset of a document.

        Args:
            uri: names the document.
            text: its text, or the part of it around the cursor.
            cursor: in code points from the start of the document.
            elsewhere: hash of what the model sees before and after the document.
            skipped: characters of the document before `text`.
            beyond: characters of the document after `text`.
        """
        offset = cursor - skipped
        near = text[offset : offset + _MOST_CLOSERS]
        closers = near[: len(near) - len(near.lstrip(_CLOSERS))]
        end = offset + len(closers)
        return cls(
            uri=uri,
            offset=cursor,
            before=hash(text[max(0, offset - _CHARS_EACH_SIDE) : offset]),
            closers=closers,
            after=hash((len(text) - end + beyond, text[end : end + _CHARS_EACH_SIDE])),
            elsewhere=elsewhere,
        )

    def leads_to(self, later: CursorFingerprint, text: str, *, skipped: int = 0) -> bool:
        """Whether typing alone leads from here to `later`.

        What follows the cursor must be the same, but for closers: editors put one there with its opener, and the one
        that is there is typed over.

        Args:
            later: the fingerprint of another cursor.
            text: the later text, or the part of it around the cursor.
            skipped: characters of the document before `text`.
        """
        if (self.uri, self.after, self.elsewhere) != (later.uri, later.after, later.elsewhere):
            return False
        if not skipped <= self.offset <= later.offset <= self.offset + _CHARS_EACH_SIDE:
            return False
        if not (self.closers.endswith(later.closers) or later.closers.endswith(self.closers)):
            return False
        if self.offset == later.offset:
            return self.before == later.before
        offset = self.offset - skipped
        return self.before == hash(text[max(0, offset - _CHARS_EACH_SIDE) : offset])


_Key = tuple[CursorFingerprint, bool]
"""Where an answer was asked for, and whether it is unlikely: one stands beside the empty one of automatic questions."""


@dataclass(slots=True, kw_only=True, eq=False)
class EngineAnswer:
    """One answer of the engine and where it was asked for.

    Attributes:
        fingerprint: of the cursor.
        infill: what the engine returned.
        speculative: whether it was prepared before the editor asked for it.
        used: whether it has answered a request.
    """

    fingerprint: CursorFingerprint
    infill: Infill
    speculative: bool = False
    used: bool = False

    @property
    def texts(self) -> dict[str, int]:
        """The proposed texts, best first, with the number of characters after the cursor that each replaces."""
        texts = {self.infill.text: self.infill.covered} if self.infill.text else {}
        return texts | {candidate.text: candidate.covered for candidate in self.infill.candidates}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerMatch:
    """An answer that may serve.

    Attributes:
        answer: the answer.
        typed: what was typed since it was asked for, with `\\n` line ends; empty at the same position.
        num_typed: length of that text in the document, where a line end may be two characters.
        has_other_closers: whether the brackets and quotes after the cursor are others than they were.
    """

    answer: EngineAnswer
    typed: str = ""
    num_typed: int = 0
    has_other_closers: bool = False


class AnswerCache:
    """The last answers of all documents, for typing through them and for undo.

    Args:
        num_answers: how many are kept; 0 keeps none, large keeps answers to text that was deleted long ago.
    """

    def __init__(self, *, num_answers: int = 100) -> None:
        self._answers: BoundedStore[_Key, EngineAnswer] = BoundedStore(num_answers)

    def put(self, answer: EngineAnswer) -> None:
        """Stores an answer; replaces one with the same key.

        An empty answer is kept too, unless the engine ran out of time.
        """
        if answer.infill.text or answer.infill.finish not in {Finish.CANCELLED, Finish.DEADLINE}:
            self._answers.put((answer.fingerprint, answer.infill.unlikely), answer)

    def has(self, fingerprint: CursorFingerprint) -> bool:
        """Whether an answer that serves automatic questions is stored for exactly this position."""
        return self._answers.get((fingerprint, False)) is not None

    def matches(self, request: Request, here: CursorFingerprint) -> Iterator[AnswerMatch]:
        """Yields what may serve a question, most recently used first: nothing but typing lies between.

        The typed text must be a prefix of an answer's text; an empty answer serves at its own position only.

        Args:
            request: the question.
            here: its fingerprint.
        """
        for _, answer in reversed(self._answers.items()):
            num_typed = request.cursor - answer.fingerprint.offset
            if not 0 <= num_typed <= min(2 * max(map(len, answer.texts), default=0), request.offset):
                continue
            typed = normalize_newlines(request.text[request.offset - num_typed : request.offset])
            begins = not typed or any(text.startswith(typed) for text in answer.texts)
            if begins and answer.fingerprint.leads_to(here, request.text, skipped=request.skipped):
                has_others = answer.fingerprint.closers != here.closers
                yield AnswerMatch(answer=answer, typed=typed, num_typed=num_typed, has_other_closers=has_others)

    def use(self, answer: EngineAnswer) -> bool:
        """Makes an answer the newest; returns whether it serves for the first time."""
        key = answer.fingerprint, answer.infill.unlikely
        if self._answers.get(key) is not answer:
            return False
        self._answers.use(key)
        is_first, answer.used = not answer.used, True
        return is_first

    def forget(self, uri: str) -> None:
        """Drops the answers of one document."""
        for key, answer in self._answers.items():
            if answer.fingerprint.uri == uri:
                self._answers.pop(key)

    def clear(self) -> None:
        """Drops all answers."""
        self._answers.clear()


def resume(request: Request, match: AnswerMatch) -> tuple[Completion, ...]:
    """Returns what remains of an answer, best first: at most one unless the user asked for it.

    Where an editor has put a bracket after the cursor since, or one was typed over, the texts are shaped anew: the
    engine shaped them for the document before that.

    Args:
        request: the question.
        match: an answer that may serve, found for the text as if the selected entry of the menu was accepted.
    """
    asked = as_if_accepted(request)
    start = asked.offset - match.num_typed
    before, after = asked.text[:start], asked.text[asked.offset :]
    around = None
    if match.has_other_closers:
        around = CursorContext.of(before, after, asked.language, is_cut=asked.skipped > 0)
    # What the texts still have to insert, and how many characters right of the cursor that covers.
    left: dict[tuple[str, int], None] = {}
    for text, num_covered in match.answer.texts.items():
        if not text.startswith(match.typed):
            continue
        if around is not None:
            shape = shape_completion(text, around, extent_of(around.before, around.rest, asked.language))
            text, num_covered = shape.text, shape.covered
        rest = text.removeprefix(match.typed)
        if text.startswith(match.typed) and rest.strip() and rest != after[:num_covered]:
            left[rest, num_covered] = None
        if left and request.trigger is Trigger.AUTOMATIC:
            break
    return tuple(completion_at(request, text, num_covered) for text, num_covered in left)


def accepted(request: Request, completion: Completion) -> Request:
    """Returns the question that follows the acceptance of a completion, to be asked ahead of the editor."""
    # Editors insert a document's own line ends.
    put = completion.text.replace("\n", "\r\n") if "\r\n" in request.text else completion.text
    start, end = completion.start - request.skipped, completion.end - request.skipped
    text = request.text[:start] + put + request.text[end:]
    return replace(
        request, text=text, offset=start + len(put), selected=None, trigger=Trigger.AUTOMATIC, speculative=True
    )
