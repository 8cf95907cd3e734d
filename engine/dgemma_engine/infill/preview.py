"""The text of a canvas between denoising steps, as a message for a preview. Plain values; knows no tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

from dgemma_engine.infill.hypotheses import RowReading
from dgemma_engine.protocol.messages import Draft, DraftSpan

# Probability from which a token seldom changes in later steps.
_SETTLED = 0.9


def draft(
    request: str,
    step: int,
    reading: RowReading,
    text: str,
    opening: str,
    text_of: Callable[[int], str | None],
    *,
    steps_limit: int,
) -> Draft:
    """Returns the text of a row, in parts of one probability.

    Args:
        request: `Context.drafts` of the request.
        step: denoising steps made.
        reading: of the row.
        text: what may be shown of it.
        opening: what the middle repeats of the prefix; not part of the draft.
        text_of: text of a token.
        steps_limit: most steps as far as is known.
    """
    pieces = [text_of(token_id) or "" for token_id in reading.ids]
    ends = [end - len(opening) for end in accumulate(map(len, pieces))]
    # Opening tokens are given; they have no probability of their own.
    logprobs = [0.0] * (len(pieces) - len(reading.token_logprobs)) + list(reading.token_logprobs)
    spans: list[DraftSpan] = []
    if text and not "".join(pieces)[len(opening) :].startswith(text):
        # A character of several tokens, or text that was cut in the middle: its tokens have no text of their own.
        spans.append(DraftSpan(text=text, confidence=min(1.0, math.exp(reading.mean_logprob)), settled=False))
        ends = []
    start = 0
    for end, logprob in zip(ends, logprobs, strict=False):
        if piece := text[start : max(start, end)]:
            probability = min(1.0, math.exp(logprob))
            spans.append(DraftSpan(text=piece, confidence=probability, settled=probability >= _SETTLED))
            start += len(piece)
    return Draft(request=request, step=step, text=text, spans=tuple(spans), steps_limit=steps_limit)
