"""The rows that a hole's canvas starts with, those that go on after the first step, and what a row holds.

A checkpoint with a fill token gets a few slot sizes and ends the middle itself. One without gets a grid of exact
lengths. Seeds enter as rows that start from their tokens instead of noise. Turns a `Hole` into `Row`s, and a row's best
tokens into a `RowReading` and the `Draft` of a preview; knows no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoiser, Guess
from dgemma_engine.infill.candidate import MiddleEnds
from dgemma_engine.infill.length_search import LengthPrior, best_lengths
from dgemma_engine.infill.task import Hole
from dgemma_engine.prompt_lookup.candidates import Seed
from dgemma_engine.protocol.messages import Draft, DraftSpan
from dgemma_engine.tokenization.token_healing import Closing, Opening

# Rows that go on after the first step, the seeds' included; decided in docs/decisions/0008.
KEPT_ROWS = 3
# Noise draws per length of the grid.
_DRAWS = 2
# Nats per token by which a slot without an end scores below one with an end.
_UNENDED = 1.0
# Between the seeds of two rows, the first of which has the request's.
_SEED_STEP = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A row, with how its middle ends and the seed it starts from.

    Attributes:
        row: what is put on the canvas.
        exact: whether the middle fills the free positions; otherwise an end token closes it.
        seed: the text it starts from, if any.
    """

    row: Row
    exact: bool
    seed: Seed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowReading:
    """The tokens of a row.

    Attributes:
        ids: tokens of the middle, those of the opening included.
        token_logprobs: of the middle's free tokens, nats.
        logprobs: the same and that of the token that ended it.
        mean_logprob: their mean; 0 when there are none.
        ended: whether the middle ends within the row.
    """

    ids: list[int]
    token_logprobs: tuple[float, ...]
    logprobs: tuple[float, ...]
    mean_logprob: float
    ended: bool


def slots(
    hole: Hole, sizes: Sequence[int], openings: Sequence[Opening], form: InfillFormat, *, most: int, seed: int
) -> list[Hypothesis]:
    """Returns rows with room to spare, for a checkpoint that ends middles itself.

    Args:
        hole: the request in token ids.
        sizes: trained slot sizes.
        openings: ways to begin.
        form: of the checkpoint.
        most: canvas positions.
        seed: of the request.
    """
    assert form.fill_token_id is not None
    rows: list[Hypothesis] = []
    for size in sizes:
        for opening in openings:
            room = most - len(hole.head_ids) - len(opening.given_ids)
            row = _opened(opening, max(1, min(size, room)), hole.head_ids, seed + len(rows) * _SEED_STEP)
            rows.append(Hypothesis(row=row, exact=False))
    return rows


def known_length(
    hole: Hole, num_tokens: int, openings: Sequence[Opening], form: InfillFormat, *, most: int, seed: int
) -> list[Hypothesis]:
    """Returns rows whose middle has exactly `num_tokens` tokens: what follows it in the slot is clamped."""
    rows: list[Hypothesis] = []
    for opening in openings:
        num_free = max(1, num_tokens - len(opening.given_ids))
        head_ids = hole.head_ids
        if form.fill_token_id is not None:
            head_ids = (form.fill_token_id,) * (form.slot_size(num_tokens + 1) - num_tokens) + head_ids
        num_free = min(num_free, max(1, most - len(opening.given_ids) - len(hole.head_ids)))
        row = _opened(opening, num_free, head_ids, seed + len(rows) * _SEED_STEP)
        rows.append(Hypothesis(row=row, exact=True))
    return rows


def length_grid(
    hole: Hole,
    lengths: Sequence[int],
    openings: Sequence[Opening],
    closings: Sequence[Closing],
    *,
    longer: bool,
    most: int,
    seed: int,
    is_random: bool = True,
) -> list[Hypothesis]:
    """Returns rows of every length, `_DRAWS` draws each, for a checkpoint that was not trained to fill.

    Args:
        hole: the request in token ids.
        lengths: free positions.
        openings: ways to begin; the first is used at all lengths, the others with the second draw.
        closings: ways to end; likewise.
        longer: whether the middle may be longer than the longest of `lengths`; that row then has no end.
        most: canvas positions.
        seed: of the request.
        is_random: whether two rows of the same edges differ; otherwise there is one for each way to begin and to end.
    """
    rows: list[Hypothesis] = []
    num_draws = _DRAWS if is_random else min(_DRAWS, max(len(openings), len(closings)))
    for length in lengths:
        for draw in range(num_draws):
            opening = openings[min(draw, len(openings) - 1)]
            closing = closings[min(draw, len(closings) - 1)]
            given = len(opening.given_ids) + len(closing.given_ids)
            if length + given + len(hole.head_ids) > most:
                continue
            head_ids = (*closing.given_ids, *hole.head_ids)
            row = _opened(opening, length, head_ids, seed + len(rows) * _SEED_STEP, last_ids=closing.last_ids)
            rows.append(Hypothesis(row=row, exact=length < lengths[-1] or not longer))
    return rows


def warm(
    hole: Hole,
    seeds: Sequence[Seed],
    encode: Callable[[str], list[int]],
    form: InfillFormat,
    *,
    most: int,
    seed: int,
) -> list[Hypothesis]:
    """Returns one row per seed, started from its tokens; those that do not fit are left out."""
    opening_ids = tuple(encode(hole.boundary.opening))
    rows: list[Hypothesis] = []
    for found in seeds:
        ids = encode(found.text + hole.boundary.closing)
        size = len(ids) if form.fill_token_id is None else form.slot_size(len(ids) + 1)
        if not ids or size < len(ids) or size + len(opening_ids) + len(hole.head_ids) > most:
            continue
        fills = [] if form.fill_token_id is None else [form.fill_token_id] * (size - len(ids))
        row = Row(
            num_free=size,
            head_ids=hole.head_ids,
            opening_ids=opening_ids,
            warm_ids=(*ids, *fills),
            seed=(seed + (1_000 + len(rows)) * _SEED_STEP) % 2**63,
        )
        rows.append(Hypothesis(row=row, exact=form.fill_token_id is None, seed=found))
    return rows


def promising(readings: dict[int, RowReading], count: int) -> list[int]:
    """Returns the rows that look best after a step, by the mean log-probability of their tokens.

    Args:
        readings: by index of the row.
        count: how many.
    """

    def score(index: int) -> float:
        reading = readings[index]
        return reading.mean_logprob - (0.0 if reading.ended else _UNENDED)

    return sorted(readings, key=score, reverse=True)[:count]


def sureness(hypotheses: Sequence[Hypothesis], denoising: Denoiser) -> dict[int, list[tuple[float, int]]]:
    """Returns mean negative entropy (nats) and index of the rows of each length, but for those started from a seed."""
    by_length: dict[int, list[tuple[float, int]]] = {}
    for index in denoising.live:
        entropy, hypothesis = denoising.guess(index).entropy, hypotheses[index]
        if hypothesis.seed is None:
            by_length.setdefault(hypothesis.row.num_free, []).append((-sum(entropy) / len(entropy), index))
    return by_length


def likely_lengths(
    hypotheses: Sequence[Hypothesis],
    denoising: Denoiser,
    prior: LengthPrior,
    *,
    bias: Callable[[int], float],
    prior_weight: float,
    count: int,
) -> list[int]:
    """Returns the surest row of each of the likeliest lengths, and all rows that started from a seed."""
    by_length = sureness(hypotheses, denoising)
    confidences = {length: [sure for sure, _ in rows] for length, rows in by_length.items()}
    chosen = best_lengths(confidences, prior, bias=bias, prior_weight=prior_weight, count=count)
    return [max(by_length[length])[1] for length in chosen] + [i for i in denoising.live if hypotheses[i].seed]


def read(guess: Guess, hypothesis: Hypothesis, ends: MiddleEnds, form: InfillFormat) -> RowReading:
    """Returns what a row holds.

    Args:
        guess: its best tokens.
        hypothesis: what it stands for.
        ends: tokens that end the middle.
        form: how the checkpoint wants holes.
    """
    ids, ended = guess.ids, not ends.behind
    for index, token_id in enumerate(guess.ids):
        # A middle that goes on past the slot ends with a token of its own, which is dropped.
        if (is_last := token_id in ends.last) or token_id in ends.behind or token_id == form.more_token_id:
            ids, ended = guess.ids[: index + is_last], token_id != form.more_token_id
            break
    judged = guess.confidence[: len(ids) + 1]
    logprobs = tuple(math.log(max(1e-9, probability)) for probability in judged)
    return RowReading(
        ids=[*hypothesis.row.opening_ids, *ids],
        token_logprobs=logprobs[: len(ids)],
        logprobs=logprobs,
        mean_logprob=sum(logprobs) / max(1, len(logprobs)),
        ended=ended or hypothesis.exact,
    )


def _opened(
    opening: Opening, num_free: int, head_ids: tuple[int, ...], seed: int, last_ids: tuple[int, ...] | None = None
) -> Row:
    """Returns a row that begins with an opening; noise at its first free position would hide what was typed so far."""
    return Row(
        num_free=num_free,
        head_ids=head_ids,
        opening_ids=opening.given_ids,
        first_ids=opening.first_ids,
        last_ids=last_ids,
        warm_ids=opening.first_ids[:1] if opening.first_ids else (),
        seed=seed % 2**63,
    )


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
