"""The text of a canvas between denoising steps, as a message for a preview. Plain values; knows no tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

from dgemma_engine.infill.hypotheses import Reading
from dgemma_engine.protocol.messages import Draft, DraftSpan

# Probability from which a token seldom changes in later steps.
_SETTLED = 0.9


def draft(
    request: str,
    step: int,
    readings: Sequence[Reading],
    opening: str,
    text_of: Callable[[int], str | None],
    *,
    steps_limit: int,
) -> Draft:
    """Returns the text of the row with the highest mean probability.

    Args:
        request: `Context.drafts` of the request.
        step: denoising steps made.
        readings: of the rows on the canvas, at least one.
        opening: what the middle repeats of the prefix; not part of the draft.
        text_of: text of a token.
        steps_limit: most steps as far as is known.
    """
    best = max(readings, key=lambda reading: reading.mean_logprob)
    spans = _spans(best, opening, text_of)
    return Draft(request=request, step=step, text=best.text, spans=spans, steps_limit=steps_limit)


def _spans(reading: Reading, opening: str, text_of: Callable[[int], str | None]) -> tuple[DraftSpan, ...]:
    pieces = [text_of(token_id) or "" for token_id in reading.ids]
    ends = [end - len(opening) for end in accumulate(map(len, pieces))]
    if not reading.text:
        return ()
    if not "".join(pieces)[len(opening) :].startswith(reading.text):
        # A character of several tokens, or text that was cut in the middle: its tokens have no text of their own.
        return (DraftSpan(text=reading.text, confidence=min(1.0, math.exp(reading.mean_logprob)), settled=False),)
    # Opening tokens are given; they have no probability of their own.
    logprobs = [0.0] * (len(pieces) - len(reading.token_logprobs)) + list(reading.token_logprobs)
    spans: list[DraftSpan] = []
    start = 0
    for end, logprob in zip(ends, logprobs, strict=True):
        piece = reading.text[start : max(start, end)]
        if piece:
            probability = min(1.0, math.exp(logprob))
            spans.append(DraftSpan(text=piece, confidence=probability, settled=probability >= _SETTLED))
            start += len(piece)
    return tuple(spans)
