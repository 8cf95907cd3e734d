"""An answer to an earlier question -> the completions here and now, where what was typed since begins it.

The answer is shaped as it was where it was asked for, so that ghost text does not change its shape under typing; once,
for all the keys that are typed through it. Pure but for that memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from dgemma_engine.protocol.messages import Infill

from dgemma_lsp.completion.cache import Match
from dgemma_lsp.postprocess.pipeline import Completion, build_completions, completion_at
from dgemma_lsp.request import Request, Trigger
from dgemma_lsp.selected import as_if_accepted


class Shaped:
    """What answers say where they were asked for, kept until another place is asked about."""

    def __init__(self) -> None:
        self._asked: Request | None = None
        self._completions: dict[str, tuple[Completion, ...]] = {}

    def at(self, asked: Request, infill: Infill, text: str) -> tuple[Completion, ...]:
        """Returns what one of an answer's texts is at the place where it was asked for."""
        if asked != self._asked:
            self._asked, self._completions = asked, {}
        if text not in self._completions:
            self._completions[text] = build_completions(asked, replace(infill, text=text, candidates=()))
        return self._completions[text]


def resume(request: Request, match: Match, shaped: Shaped) -> tuple[Completion, ...]:
    """Returns what is left over of an answer, best first: at most one unless the user asked for it.

    Args:
        request: the question.
        match: an answer that may serve it, found for the text as if the selected entry of the menu was accepted.
        shaped: what was shaped before.
    """
    if not match.num_typed:
        return build_completions(request, match.answer.infill)
    lefts = _left_over(as_if_accepted(request), match, shaped)
    if request.trigger is Trigger.AUTOMATIC:
        lefts = islice(lefts, 1)
    return tuple(completion_at(request, left, num_covered) for left, num_covered in dict.fromkeys(lefts))


def accepted(request: Request, completion: Completion) -> Request:
    """Returns the question that follows once a completion was accepted."""
    # Editors insert a document's own line ends.
    put = completion.text.replace("\n", "\r\n") if "\r\n" in request.text else completion.text
    start, end = completion.start - request.skipped, completion.end - request.skipped
    text = request.text[:start] + put + request.text[end:]
    # Nobody asks for it by hand.
    return replace(request, text=text, offset=start + len(put), selected=None, trigger=Trigger.AUTOMATIC)


def _left_over(asked: Request, match: Match, known: Shaped) -> Iterator[tuple[str, int]]:
    """Yields what the answer's texts still have to insert, and how many characters right of the cursor that covers."""
    start = asked.offset - match.num_typed
    before = asked.text[:start] + asked.text[asked.offset :]
    # One question for every key: its version and what made the editor ask change nothing.
    earlier = replace(asked, text=before, offset=start, trigger=Trigger.AUTOMATIC, version=0)
    for text in match.answer.texts:
        if not text.startswith(match.typed):
            continue
        for shaped in known.at(earlier, match.answer.infill, text):
            left, num_covered = shaped.inserted.removeprefix(match.typed), shaped.end - shaped.cursor
            begins = shaped.inserted.startswith(match.typed)
            if begins and left.strip() and left != asked.text[asked.offset : asked.offset + num_covered]:
                yield left, num_covered
