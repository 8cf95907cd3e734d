"""Holes in text to training examples in token ids, laid out exactly as the engine puts a hole to the model.

Shape-free: an `Example` is lists of ids; `batches.py` makes arrays of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.tools.corpus import bpe
from dgemma_engine.tools.corpus.middles import SourceHole

# As the engine cuts text before it tokenises: this many characters per token of budget.
_CHARACTERS_PER_TOKEN = 8
# Share of middles that do not fit their slot, of those that could be put into a larger one.
_TOO_SMALL_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One hole in token ids.

    Attributes:
        prompt_ids: what the encoder reads.
        slot_ids: what the free positions should become; its length is the slot's size.
        num_content: content tokens at the slot's beginning: the middle and the token that ends it.
        head_ids: clamped after the slot; empty when the rest of the file is blank.
    """

    prompt_ids: list[int]
    slot_ids: list[int]
    num_content: int
    head_ids: list[int]


def training_format(
    *, slot_sizes: tuple[int, ...], prefix_tokens: int, suffix_tokens: int, suffix_head_tokens: int
) -> InfillFormat:
    """Returns the format of a checkpoint that is trained here, with the ids of `bpe`."""
    return InfillFormat(
        fill_token_id=bpe.FILL,
        more_token_id=bpe.MORE,
        prefix_token_id=bpe.PREFIX,
        suffix_token_id=bpe.SUFFIX,
        slot_sizes=slot_sizes,
        prefix_tokens=prefix_tokens,
        suffix_tokens=suffix_tokens,
        suffix_head_tokens=suffix_head_tokens,
    )


def build_example(
    text: str, hole: SourceHole, form: InfillFormat, tokenizer: Tokenizer, random: Random
) -> Example | None:
    """Returns the example of one hole, or None when the middle is too long for any slot.

    Args:
        text: the file.
        hole: where its middle is.
        form: layout and budgets.
        tokenizer: of the corpus.
        random: draws the size of the slot.
    """
    prefix = text[max(0, hole.start - form.prefix_tokens * _CHARACTERS_PER_TOKEN) : hole.start]
    suffix_budget = max(form.suffix_tokens, form.suffix_head_tokens) * _CHARACTERS_PER_TOKEN
    # The engine reads the whole suffix, so a blank stretch longer than the budget is not the end of the file.
    ends_file = not text[hole.end :].strip()
    suffix = "" if ends_file else text[hole.end : hole.end + suffix_budget]
    prefix_ids, middle_ids, suffix_ids = (
        encoding.ids
        for encoding in tokenizer.encode_batch_fast(
            [prefix, text[hole.start : hole.end], suffix], add_special_tokens=False
        )
    )
    if ends_file:
        middle_ids.append(bpe.EOS)
    slot = choose_slot(middle_ids, form.slot_sizes, random)
    if slot is None:
        return None
    slot_ids, num_content = slot
    return Example(
        prompt_ids=form.prompt_ids(prefix_ids=prefix_ids, suffix_ids=suffix_ids, bos_token_id=bpe.BOS),
        slot_ids=slot_ids,
        num_content=num_content,
        head_ids=suffix_ids[: form.suffix_head_tokens],
    )


def choose_slot(middle_ids: list[int], sizes: tuple[int, ...], random: Random) -> tuple[list[int], int] | None:
    """Returns slot ids and how many of them are content, or None when no slot holds the middle.

    Of the sizes that hold the middle the smallest is taken half of the time, a larger one otherwise; a middle that
    fills a slot exactly stands without a fill. A few middles get a slot that is too small, ended by `<more>`.

    Args:
        middle_ids: the whole middle, with <eos> where the file ends.
        sizes: ascending slot sizes.
        random: draws the size.
    """
    fitting = [size for size in sizes if size >= len(middle_ids)]
    smaller = [size for size in sizes if size < len(middle_ids)]
    # What fits nowhere is cut more often: a middle longer than every slot has no other way into training.
    if smaller and random.random() < (_TOO_SMALL_SHARE if fitting else 0.25):
        size = smaller[-1]
        return [*middle_ids[: size - 1], bpe.MORE], size
    if not fitting:
        return None
    larger = fitting[1:] if random.random() < 0.5 else []
    # Among the larger ones the next is the likeliest: a slot much too large is a rare mistake of the engine.
    size = larger[min(int(random.expovariate(1.0)), len(larger) - 1)] if larger else fitting[0]
    num_fills = size - len(middle_ids)
    return [*middle_ids, *[bpe.FILL] * num_fills], min(size, len(middle_ids) + 1)
