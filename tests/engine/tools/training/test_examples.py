from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.tools.corpus.bpe import BOS, EOS, FILL, MORE, PAD, PREFIX, SUFFIX
from dgemma_engine.tools.corpus.middles import MiddleMix, SourceHole
from dgemma_engine.tools.training.data.batches import BatchPlan, BatchStream, ChunkSource, Position
from dgemma_engine.tools.training.data.examples import build_example, choose_slot, training_format
from tokenizers import Tokenizer


@pytest.fixture
def form() -> InfillFormat:
    return training_format(slot_sizes=(8, 16), prefix_tokens=24, suffix_tokens=5, suffix_head_tokens=8)


@pytest.fixture
def plan(corpus: Path, form: InfillFormat) -> BatchPlan:
    return BatchPlan(
        corpus=corpus, split="train", form=form, mix=MiddleMix(), canvases_per_hole=2, tokens=600,
        chunk_holes=60, seed=3,
    )  # fmt: skip


@pytest.fixture
def tokenizer(corpus: Path) -> Tokenizer:
    loaded = Tokenizer.from_file(str(corpus / "tokenizer.json"))
    loaded.encode_special_tokens = True
    return loaded


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def test_example_equals_the_engines_request(form: InfillFormat, tokenizer: Tokenizer) -> None:
    text = "a = b\nc = dé\ne = f\n"
    example = build_example(text, SourceHole(start=8, end=12), form, tokenizer, Random(0))
    assert example is not None
    suffix_ids = ids(tokenizer, text[12:])
    assert example.prompt_ids == [BOS, SUFFIX, *suffix_ids[:5], PREFIX, *ids(tokenizer, text[:8])]
    assert example.head_ids == suffix_ids[:8]
    middle = ids(tokenizer, "= dé")
    assert example.slot_ids[: len(middle) + 1] == [*middle, FILL]
    assert example.num_content == len(middle) + 1


def test_blank_rest_ends_the_middle_with_eos_and_leaves_no_head(form: InfillFormat, tokenizer: Tokenizer) -> None:
    example = build_example("a = b\n\n  \n", SourceHole(start=4, end=5), form, tokenizer, Random(0))
    assert example is not None
    assert example.head_ids == []
    assert example.prompt_ids[:3] == [BOS, SUFFIX, PREFIX]
    middle = ids(tokenizer, "b")
    assert example.slot_ids[: len(middle) + 2] == [*middle, EOS, FILL]


def test_special_names_in_a_file_stay_text(form: InfillFormat, tokenizer: Tokenizer) -> None:
    example = build_example("x = '<fill>'\ny = 1\n", SourceHole(start=5, end=8), form, tokenizer, Random(0))
    assert example is not None
    assert FILL not in example.prompt_ids
    assert FILL not in example.head_ids


def test_slots_are_smallest_half_of_the_time_and_exact_ones_have_no_fill() -> None:
    random, middle = Random(0), list(range(20, 25))
    drawn = [choose_slot(middle, (4, 8, 16), random) for _ in range(2_000)]
    sizes = [len(slot[0]) for slot in drawn if slot]
    assert 0.40 < sizes.count(8) / 2_000 < 0.55
    assert 0.02 < sizes.count(4) / 2_000 < 0.08
    for slot in drawn:
        assert slot is not None
        if len(slot[0]) == 4:
            assert slot == ([*middle[:3], MORE], 4)
        else:
            assert slot == ([*middle, *[FILL] * (len(slot[0]) - 5)], 6)
    exact = [slot for _ in range(50) if (slot := choose_slot(list(range(20, 28)), (8,), random))]
    assert exact == [(list(range(20, 28)), 8)] * 50


def test_a_middle_too_long_for_every_slot_is_cut_or_left_out() -> None:
    random = Random(0)
    drawn = [choose_slot(list(range(20, 60)), (8, 16), random) for _ in range(400)]
    assert {len(slot[0]) for slot in drawn if slot} == {16}
    assert all(slot[0][-1] == MORE for slot in drawn if slot)
    assert 0.15 < sum(slot is not None for slot in drawn) / 400 < 0.35


def test_batches_have_one_slot_size_and_padding_where_it_belongs(plan: BatchPlan) -> None:
    for batch in ChunkSource(plan).chunk(0):
        assert batch.slot_BS.shape[1] in (8, 16)
        assert batch.num_rows == plan.num_rows(batch.slot_BS.shape[1])
        assert batch.prompt_BP.shape == (batch.num_rows, 32)
        for row in range(batch.num_rows):
            length, head = int(batch.prompt_lengths_B[row]), int(batch.head_lengths_B[row])
            assert (batch.prompt_BP[row, : 32 - length] == PAD).all()
            assert batch.prompt_BP[row, 32 - length] == BOS
            assert (batch.head_BH[row, head:] == PAD).all()
            slot, content = batch.slot_BS[row].tolist(), int(batch.content_lengths_B[row])
            assert slot[content:] == [FILL] * (len(slot) - content)
            assert slot[: content - 1].count(FILL) == 0


def _take(stream: BatchStream, count: int) -> list[np.ndarray]:
    return [batch.prompt_BP for batch, _ in zip(stream, range(count), strict=False)]


def test_stream_resumes_at_its_position(plan: BatchPlan) -> None:
    whole = BatchStream.of_plan(plan, start=Position(), num_workers=0)
    batches = _take(whole, 12)
    for done in (0, 3, 7, 11):
        first = BatchStream.of_plan(plan, start=Position(), num_workers=0)
        iterator = iter(first)
        for _ in range(done):
            next(iterator)
        second = BatchStream.of_plan(plan, start=first.position, num_workers=0)
        np.testing.assert_equal(next(iter(second)).prompt_BP, batches[done])


@pytest.mark.slow
def test_workers_make_the_same_stream(plan: BatchPlan) -> None:
    here = _take(BatchStream.of_plan(plan, start=Position(), num_workers=0), 5)
    stream = BatchStream.of_plan(plan, start=Position(), num_workers=1)
    there = _take(stream, 5)
    stream.close()
    for left, right in zip(here, there, strict=True):
        np.testing.assert_equal(left, right)


def test_other_splits_and_seeds_give_other_holes(plan: BatchPlan) -> None:
    first = ChunkSource(plan).chunk(0)[0].prompt_BP
    for other in (replace(plan, seed=4), replace(plan, split="held_out")):
        assert not np.array_equal(first, ChunkSource(other).chunk(0)[0].prompt_BP)
