"""An endless, seeded, resumable stream of training batches, grouped by slot size so that a batch has one shape.

Chunk n of a stream depends only on the seed and n: any worker can make it, and a resumed run needs no more than a
position. Shape legend: B rows, P prompt tokens (padded on the left), S slot, H suffix head (padded on the right).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.corpus import bpe
from dgemma_engine.tools.corpus.corpus import Corpus, Split
from dgemma_engine.tools.corpus.middles import MiddleMix, SourceHole, SourceText, choose_hole
from dgemma_engine.tools.training.data.examples import Example, build_example

_HOLES_PER_FILE = 4
_END_OF_FILE_SHARE = 0.08
# Rare in installed packages, common in editors on Windows.
_CRLF_SHARE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one slot size; all ids int32.

    Attributes:
        prompt_BP: padded on the left.
        prompt_lengths_B: tokens of each prompt.
        slot_BS: the wanted slots.
        content_lengths_B: content tokens at the slot's beginning: the middle and what ends it.
        head_BH: clamped suffix heads, padded on the right.
        head_lengths_B: tokens of each head.
        given_BS: bool, slot tokens that are given: clamped, and no targets.
        causal_N: where prompt and slot, row after row without each one's first token, hold a target of the causal
            loss, int64.
    """

    prompt_BP: NDArray[np.int32]
    prompt_lengths_B: NDArray[np.int32]
    slot_BS: NDArray[np.int32]
    content_lengths_B: NDArray[np.int32]
    head_BH: NDArray[np.int32]
    head_lengths_B: NDArray[np.int32]
    given_BS: NDArray[np.bool_]
    causal_N: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """B."""
        return self.prompt_BP.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What a stream is made from; small and picklable, so that it can be sent to workers.

    Attributes:
        corpus: folder of a corpus.
        split: which part of it.
        form: layout and budgets.
        mix: kinds of hole.
        canvases_per_hole: noise draws per hole; they share one prompt pass and count against `tokens`.
        tokens: prompt and canvas tokens of a batch, about; small steps often, large is smooth.
        chunk_holes: holes that are drawn and grouped together; small leaves more rows over.
        seed: of every draw.
    """

    corpus: Path
    split: Split
    form: InfillFormat
    mix: MiddleMix
    canvases_per_hole: int
    tokens: int
    chunk_holes: int
    seed: int

    @property
    def prompt_tokens(self) -> int:
        """P: a full prompt with its three special tokens, rounded up to a multiple of 16 for the matrix units."""
        return -(-(3 + self.form.prefix_tokens + self.form.suffix_tokens) // 16) * 16

    def num_rows(self, slot_size: int) -> int:
        """Returns the rows of a batch of one slot size."""
        canvas_tokens = self.canvases_per_hole * (slot_size + self.form.suffix_head_tokens)
        return max(1, self.tokens // (self.prompt_tokens + slot_size + canvas_tokens))


class ChunkSource:
    """Makes chunks of batches from an open corpus.

    Args:
        plan: what to make.

    Raises:
        TrainingError: there is no such corpus.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._corpus = Corpus.load(plan.corpus, plan.split)
        self._tokenizer = Tokenizer.from_file(str(plan.corpus / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True

    def chunk(self, index: int) -> list[Batch]:
        """Returns the batches of chunk `index`, in random order.

        Rows that do not fill a batch move to the next larger slot, where more slack is as legal; what is left of the
        largest is dropped.
        """
        plan, random = self._plan, Random(f"{self._plan.seed} {index}")
        groups: dict[int, list[Example]] = {size: [] for size in plan.form.slot_sizes}
        for example in self._examples(random):
            groups[len(example.slot_ids)].append(example)
        batches: list[Batch] = []
        sizes = plan.form.slot_sizes
        for position, size in enumerate(sizes):
            rows, num_rows = groups[size], plan.num_rows(size)
            whole = len(rows) - len(rows) % num_rows
            batches += [collate(rows[i : i + num_rows], plan) for i in range(0, whole, num_rows)]
            if position + 1 < len(sizes):
                groups[sizes[position + 1]] += [
                    _widened(row, sizes[position + 1]) for row in rows[whole:] if row.slot_ids[-1] != bpe.MORE
                ]
        random.shuffle(batches)
        return batches

    def _examples(self, random: Random) -> Iterator[Example]:
        num_wanted, num_misses = self._plan.chunk_holes, 0
        while num_wanted:
            text = self._corpus.text(self._corpus.at_byte(random.randrange(self._corpus.num_bytes)))
            if random.random() < _CRLF_SHARE:
                text = text.replace("\r\n", "\n").replace("\n", "\r\n")
            source = SourceText(text)
            for _ in range(min(_HOLES_PER_FILE, num_wanted)):
                hole = choose_hole(source, self._plan.mix, random)
                example = None if hole is None else self._example(source, hole, random)
                if example is None:
                    num_misses += 1
                    continue
                num_wanted -= 1
                yield example
            if num_misses > 100 * self._plan.chunk_holes:
                raise TrainingError(f"{self._plan.corpus}: no hole fits the slots; the files may be blank")

    def _example(self, source: SourceText, hole: SourceHole, random: Random) -> Example | None:
        text = source.text
        ends_line = hole.end == len(text) or text[hole.end] in "\r\n"
        if ends_line and random.random() < _END_OF_FILE_SHARE:
            text = text[: hole.end] + random.choice(["", "\n"])
        return build_example(text, hole, self._plan.form, self._tokenizer, random)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a stream stands: the chunk, and the batches of it that are done."""

    chunk: int = 0
    batch: int = 0


class BatchStream:
    """An endless stream of batches.

    Args:
        chunks: returns the chunks from one on, without end.
        start: where to begin; what comes is the same as if the batches before had been drawn.
    """

    def __init__(self, chunks: Callable[[int], Generator[list[Batch]]], *, start: Position) -> None:
        self.position = start
        self._batches = self._run(chunks(start.chunk))

    @classmethod
    def of_plan(cls, plan: BatchPlan, *, start: Position, num_workers: int) -> Self:
        """Returns the batches of a corpus.

        Args:
            plan: what to make.
            start: where to begin.
            num_workers: processes that make chunks ahead; 0 makes them here.
        """
        return cls(lambda first: _chunks(plan, first, num_workers), start=start)

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    def close(self) -> None:
        """Ends the workers."""
        self._batches.close()

    def _run(self, chunks: Generator[list[Batch]]) -> Generator[Batch]:
        start = self.position
        for index, chunk in enumerate(chunks, start.chunk):
            for number in range(start.batch if index == start.chunk else 0, len(chunk)):
                self.position = Position(chunk=index, batch=number + 1)
                yield chunk[number]


def _chunks(plan: BatchPlan, first: int, num_workers: int) -> Generator[list[Batch]]:
    if num_workers == 0:
        source = ChunkSource(plan)
        yield from map(source.chunk, count(first))
        return
    # Spawned: a fork would copy a process in which torch already runs threads.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        ahead: deque[Future[list[Batch]]] = deque()
        for index in count(first):
            ahead.append(pool.submit(_make_chunk, plan, index))
            if len(ahead) > 2 * num_workers:
                yield ahead.popleft().result()


def _make_chunk(plan: BatchPlan, index: int) -> list[Batch]:
    return ChunkSource(plan).chunk(index)


def collate(examples: list[Example], plan: BatchPlan) -> Batch:
    """Returns examples of one slot size as arrays."""
    num_rows, slot_size = len(examples), len(examples[0].slot_ids)
    prompt_BP = np.full((num_rows, plan.prompt_tokens), bpe.PAD, dtype=np.int32)
    head_BH = np.full((num_rows, plan.form.suffix_head_tokens), bpe.PAD, dtype=np.int32)
    for row, example in enumerate(examples):
        prompt_BP[row, plan.prompt_tokens - len(example.prompt_ids) :] = example.prompt_ids
        head_BH[row, : len(example.head_ids)] = example.head_ids
    slot_BS = np.array([example.slot_ids for example in examples], dtype=np.int32).reshape(num_rows, slot_size)
    content_lengths_B = np.array([example.num_content for example in examples], dtype=np.int32)
    return Batch(
        prompt_BP=prompt_BP,
        prompt_lengths_B=np.array([len(example.prompt_ids) for example in examples], dtype=np.int32),
        slot_BS=slot_BS,
        content_lengths_B=content_lengths_B,
        head_BH=head_BH,
        head_lengths_B=np.array([len(example.head_ids) for example in examples], dtype=np.int32),
        given_BS=np.zeros(slot_BS.shape, np.bool_),
        causal_N=causal_targets(prompt_BP, slot_BS, content_lengths_B),
    )


def causal_targets(
    prompt_BP: NDArray[np.int32], slot_BS: NDArray[np.int32], content_lengths_B: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Returns `Batch.causal_N` of holes.

    Markers between the parts of a prompt and padding are no targets; of a slot, the middle and its end are.
    """
    prompt_tokens = prompt_BP.shape[1]
    targets_BT = np.concatenate((prompt_BP, slot_BS), axis=1)[:, 1:]
    index_T = np.arange(1, targets_BT.shape[1] + 1)[None]
    in_middle_BT = (index_T >= prompt_tokens) & (index_T < prompt_tokens + content_lengths_B[:, None])
    in_prompt_BT = (index_T < prompt_tokens) & (targets_BT >= len(bpe.SPECIAL_TOKENS))
    return np.flatnonzero(in_prompt_BT | (in_middle_BT & (targets_BT != bpe.MORE)))


def _widened(example: Example, slot_size: int) -> Example:
    """Returns the example in a larger slot, filled up; one without a fill so far gets its first."""
    had_end = bpe.FILL in example.slot_ids
    num_fills = slot_size - len(example.slot_ids)
    return Example(
        prompt_ids=example.prompt_ids,
        slot_ids=[*example.slot_ids, *[bpe.FILL] * num_fills],
        num_content=example.num_content if had_end else len(example.slot_ids) + 1,
        head_ids=example.head_ids,
    )
