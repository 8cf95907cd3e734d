"""Where the trainer's batches come from: a corpus with holes cut into it, or a task (`task_data`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dgemma_engine.durable_files import write_whole
from dgemma_engine.tools.corpus.corpus import Corpus, Split
from dgemma_engine.tools.training.checkpoint import SLOT_GENERATION
from dgemma_engine.tools.training.curves import Curves
from dgemma_engine.tools.training.data.batches import BatchPlan, BatchStream, Position
from dgemma_engine.tools.training.model_card import model_card
from dgemma_engine.tools.training.train_config import TrainConfig


class TrainingData(Protocol):
    """A source of batches in two splits, with the tokenizer that made them."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a state belongs to beside the configuration, JSON-ready."""
        ...

    @property
    def generation(self) -> Mapping[str, Any]:
        """Decisions of the sampler that suit what was learnt, as in `generation_config.json`."""
        ...

    def stream(self, split: Split, start: Position, *, num_workers: int) -> BatchStream:
        """Returns the batches of a split from a position on.

        Args:
            split: which rows.
            start: where to begin.
            num_workers: processes that may make batches ahead.

        Raises:
            TrainingError: there are none.
        """
        ...

    def save_tokenizer(self, folder: Path) -> None:
        """Writes `tokenizer.json`.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def card(self, curves: Curves, *, num_parameters: int, seed: int) -> str:
        """Returns the `README.md` of a model folder.

        Args:
            curves: of the run so far.
            num_parameters: of the model.
            seed: of the run.
        """
        ...


@dataclass(frozen=True, slots=True)
class CorpusData:
    """See `TrainingData`.

    Attributes:
        folder: of `build_corpus`.
        config: of the run: layout and budgets.
    """

    folder: Path
    config: TrainConfig

    @property
    def identity(self) -> dict[str, Any]:
        """See `TrainingData.identity`; a corpus may grow between two calls."""
        return {}

    @property
    def generation(self) -> Mapping[str, Any]:
        """See `TrainingData.generation`."""
        return SLOT_GENERATION

    def stream(self, split: Split, start: Position, *, num_workers: int) -> BatchStream:
        """See `TrainingData.stream`."""
        config, data = self.config, self.config.data
        Corpus.load(self.folder, split)
        plan = BatchPlan(
            corpus=self.folder,
            split=split,
            form=config.format.infill_format(),
            mix=config.middles,
            canvases_per_hole=data.canvases_per_hole,
            tokens=data.batch_tokens,
            chunk_holes=data.chunk_holes,
            seed=config.run.seed,
        )
        return BatchStream.of_plan(plan, start=start, num_workers=num_workers)

    def save_tokenizer(self, folder: Path) -> None:
        """See `TrainingData.save_tokenizer`."""
        write_whole(folder / "tokenizer.json", (self.folder / "tokenizer.json").read_bytes())

    def card(self, curves: Curves, *, num_parameters: int, seed: int) -> str:
        """See `TrainingData.card`."""
        return model_card(curves, self.folder, num_parameters=num_parameters, seed=seed)
