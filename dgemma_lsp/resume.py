"""An answer to an earlier question -> the completions here and now, where what was typed since begins it.

Pure. The answer is shaped as it was where it was asked for, so that ghost text does not change its shape under typing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dgemma_lsp.answers import Match
from dgemma_lsp.completion import Completion, build_completions, completion_at
from dgemma_lsp.request import Request, Trigger
from dgemma_lsp.selected import as_if_accepted


def resume(request: Request, match: Match) -> tuple[Completion, ...]:
    """Returns what is left over of an answer, best first: at most one unless the user asked for it.

    Args:
        request: the question.
        match: an answer that may serve it, found for the text as if the selected entry of the menu was accepted.
    """
    if not match.num_typed:
        return build_completions(request, match.answer.infill)
    lefts = dict.fromkeys(_left_over(as_if_accepted(request), match))
    completions = tuple(completion_at(request, left, num_covered) for left, num_covered in lefts)
    return completions if request.trigger is Trigger.INVOKED else completions[:1]


def accepted(request: Request, completion: Completion) -> Request:
    """Returns the question that follows once a completion was accepted."""
    # Editors insert a document's own line ends.
    put = completion.text.replace("\n", "\r\n") if "\r\n" in request.text else completion.text
    text = request.text[: completion.start] + put + request.text[completion.end :]
    # Nobody asks for it by hand.
    return replace(request, text=text, offset=completion.start + len(put), selected=None, trigger=Trigger.AUTOMATIC)


def _left_over(asked: Request, match: Match) -> Iterator[tuple[str, int]]:
    """Yields what the answer's texts still have to insert, and how many characters right of the cursor that covers."""
    start = asked.offset - match.num_typed
    earlier = replace(
        asked, text=asked.text[:start] + asked.text[asked.offset :], offset=start, trigger=Trigger.AUTOMATIC
    )
    for text in match.answer.texts:
        if not text.startswith(match.typed):
            continue
        for shaped in build_completions(earlier, replace(match.answer.infill, text=text, candidates=())):
            left, num_covered = shaped.inserted.removeprefix(match.typed), shaped.end - shaped.cursor
            begins = shaped.inserted.startswith(match.typed)
            if begins and left.strip() and left != asked.text[asked.offset : asked.offset + num_covered]:
                yield left, num_covered
