"""A task as training data: rows of a file in, batches whose slot is a whole canvas with its given tokens clamped out.

The tokenizer is trained on the rows. Rows are grouped by the length of their canvas, so that a batch has one shape.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from dgemma_engine.durable_files import write_whole
from dgemma_engine.errors import TaskError
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.corpus import bpe
from dgemma_engine.tools.corpus.corpus import Split
from dgemma_engine.tools.tasks.task_rows import fingerprint, read_rows
from dgemma_engine.tools.tasks.task_split import is_held_out
from dgemma_engine.tools.tasks.task_tokens import TaskTokenizer, TaskTokens
from dgemma_engine.tools.training.checkpoint import TASK_GENERATION
from dgemma_engine.tools.training.curves import Curves
from dgemma_engine.tools.training.data.batches import Batch, BatchStream, Position
from dgemma_engine.tools.training.model_card import task_card
from dgemma_engine.tools.training.train_config import TrainConfig

MIN_ROWS = 100
"""Fewer teach nothing to random weights."""

_BPE_ROWS = 20_000


class TaskData:
    """See `TrainingData`.

    Args:
        path: file of task rows, all with their free text.
        config: of the run: vocabulary, lengths and budgets.

    Raises:
        TaskError: a row cannot be used, or there are too few.
        TrainingError: the rows are too few for the vocabulary.
    """

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self._path, self._config = path, config
        self._backend = bpe.train_bpe(_texts(path), config.model.vocab_size)
        tokenizer = TaskTokenizer(Tokenizer(self._backend), start_id=bpe.BOS, blank_id=bpe.MASK)
        self._rows: dict[Split, list[TaskTokens]] = {"train": [], "held_out": []}
        for row in read_rows(path):
            if any(part.text is None for part in row.parts):
                raise TaskError(f"{row.place} has free parts without text; a row to train on needs all of its text")
            tokens = tokenizer.tokens(row)
            tokens.require_fits(config.model.canvas_length, config.model.max_position_embeddings, row.place)
            self._rows["held_out" if is_held_out(row) else "train"].append(tokens)
        num_rows = sum(map(len, self._rows.values()))
        if num_rows < MIN_ROWS or not all(self._rows.values()):
            raise TaskError(f"{path}: holds {num_rows} rows, at least {MIN_ROWS} different ones are needed to train on")
        self._sha256 = fingerprint(path)

    @property
    def identity(self) -> dict[str, Any]:
        """See `TrainingData.identity`."""
        return {"task_sha256": self._sha256}

    @property
    def generation(self) -> Mapping[str, Any]:
        """See `TrainingData.generation`."""
        return TASK_GENERATION

    def stream(self, split: Split, start: Position, *, num_workers: int) -> BatchStream:
        """See `TrainingData.stream`; drawing costs so little that it needs no worker."""
        rows, config = self._rows[split], self._config

        def chunks(first: int) -> Generator[list[Batch]]:
            for index in count(first):
                random = Random(f"{config.run.seed} {index}")
                chosen = random.choices(rows, k=config.data.chunk_holes)
                yield list(self._batches(chosen, random))

        return BatchStream(chunks, start=start)

    def save_tokenizer(self, folder: Path) -> None:
        """See `TrainingData.save_tokenizer`."""
        write_whole(folder / "tokenizer.json", self._backend.to_str(pretty=True).encode())

    def card(self, curves: Curves, *, num_parameters: int, seed: int) -> str:
        """See `TrainingData.card`."""
        return task_card(curves, self._path.name, len(self._rows["train"]), num_parameters=num_parameters, seed=seed)

    def _batches(self, rows: Sequence[TaskTokens], random: Random) -> Iterator[Batch]:
        groups = dict[int, list[TaskTokens]]()
        for row in rows:
            groups.setdefault(len(row.canvas), []).append(row)
        batches = list[Batch]()
        for length, group in groups.items():
            longest = max(len(row.prompt) for row in group)
            tokens = longest + length + self._config.data.canvases_per_hole * length
            num_rows = max(1, self._config.data.batch_tokens // tokens)
            batches += [_batch(group[at : at + num_rows]) for at in range(0, len(group), num_rows)]
        random.shuffle(batches)
        return iter(batches)


def _batch(rows: Sequence[TaskTokens]) -> Batch:
    num_rows, num_prompt = len(rows), max(len(row.prompt) for row in rows)
    prompt_BP = np.full((num_rows, num_prompt), bpe.PAD, np.int32)
    for index, row in enumerate(rows):
        prompt_BP[index, num_prompt - len(row.prompt) :] = row.prompt
    slot_BS = np.stack([row.canvas for row in rows])
    given_BS = ~np.stack([row.is_free for row in rows])
    target_BT = np.concatenate((np.zeros((num_rows, num_prompt - 1), np.bool_), ~given_BS), axis=1)
    return Batch(
        prompt_BP=prompt_BP,
        prompt_lengths_B=np.array([len(row.prompt) for row in rows], np.int32),
        slot_BS=slot_BS,
        content_lengths_B=np.full(num_rows, slot_BS.shape[1], np.int32),
        head_BH=np.zeros((num_rows, 0), np.int32),
        head_lengths_B=np.zeros(num_rows, np.int32),
        given_BS=given_BS,
        causal_N=np.flatnonzero(target_BT),
    )


def _texts(path: Path) -> Iterator[str]:
    for row in islice(read_rows(path), _BPE_ROWS):
        for part in row.parts:
            yield part.text or ""
