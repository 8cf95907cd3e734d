"""A small random Llama with an adapter beside it, and a repository whose lines it can memorise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.features import Features
from dgemma_engine.infill.candidate import Proposal, Ranked
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.protocol.messages import CandidateSource, Context
from dgemma_engine.repository_adapters.store import AdapterStore, canonical_root
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.adaptation.config import EvaluationConfig, OptimizerConfig, SampleConfig
from dgemma_engine.tools.training.optimization.schedule import Schedule
from dgemma_engine.tools.tuning.repository.file_split import FileSplit
from dgemma_engine.tools.tuning.repository.repository_files import read_repository
from dgemma_engine.tools.tuning.training_config import tune_config
from dgemma_engine.tools.tuning.tuned_base import TunedBase
from dgemma_engine.tools.tuning.tuner import Report, Tuner
from dgemma_engine.tools.tuning.work_clock import WorkClock

from tests.engine.repository_adapters.conftest import make_about  # noqa: F401, a fixture
from tests.engine.tools.tiny_base import MARKS, one_thread_in_full_precision, write_tiny_base
from tests.llama_checkpoints import write_adapter

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)

MakeTuner = Callable[..., Tuner]


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See `one_thread_in_full_precision`; processes that are started have one thread, too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with one_thread_in_full_precision(monkeypatch, "tools.adaptation.adapted_base", "families.causal_llama"):
        yield


@pytest.fixture(scope="session")
def shared_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file whose vocabulary has the special tokens of an adapter, with an adapter beside it."""
    path = write_tiny_base(tmp_path_factory.mktemp("base"), MARKS, max_position_embeddings=2_048)
    write_adapter(path, "causal")
    return path


@pytest.fixture
def base(shared_base: Path, tmp_path: Path) -> Path:
    """A copy of `shared_base` that a test may change."""
    folder = tmp_path / "model"
    (folder / "adapters").mkdir(parents=True)
    for name in ("model.gguf", "adapters/causal.safetensors"):
        (folder / name).write_bytes((shared_base.parent / name).read_bytes())
    return folder / "model.gguf"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Thirty files of functions that differ in their names only."""
    folder = tmp_path / "repo"
    (folder / "src").mkdir(parents=True)
    for number in range(30):
        (folder / "src" / f"file{number}.py").write_text(source(number))
    return folder


def source(number: int) -> str:
    """A file; no three lines of two files are the same."""
    draw = random.Random(number)
    names = ["".join(draw.choices("abcd", k=6)) for _ in range(10)]
    return "".join(f"def {name}(x, y):\n    return x + y\n\n" for name in names)


class Clock:
    """A clock that advances by one second at each reading."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def work_clock(**changed: Any) -> WorkClock:
    """A work clock without interruptions; keywords replace its parts."""
    parts: dict[str, Any] = {
        "clock": Clock(), "sleep": lambda _seconds: None, "is_answering": lambda: False,
        "is_on_battery": lambda: False, "is_interrupted": lambda: False,
    }  # fmt: skip
    return WorkClock(**(parts | changed))


class KnowingEngine:
    """Fills a fixed share of the holes correctly, the same ones each time, and the others almost."""

    model_name, device = "known", "cpu"

    def __init__(self, repository: Path, share: float) -> None:
        self._texts = [path.read_text() for path in sorted(repository.rglob("*.py"))]
        self._share = share
        self.num_asked = 0
        self.adapters = {str(canonical_root(repository)): ""}

    def ranked(self, context: Context, cancel: Cancel, *, options: InfillOptions) -> list[Ranked]:
        """Returns one candidate."""
        self.num_asked += 1
        before, after = context.prefix, context.suffix
        text = next(one for one in self._texts if one.startswith(before) and one.endswith(after))
        truth = text[len(before) : len(text) - len(after)]
        draw = random.Random(f"{context.document}")
        is_right = draw.random() < self._share
        proposal = Proposal(text=truth if is_right else f"{truth}?", source=CandidateSource.LEFT_TO_RIGHT)
        features = Features(middle_mean=draw.gauss(-0.5 if is_right else -2.0, 0.4), middle_sum=-3.0, suffix_mean=-1.0)
        return [Ranked(proposal=proposal, score=0.9 if is_right else 0.1, features=features)]

    def length_reading(self, *_arguments: object) -> None:
        """Returns None: no lengths are measured."""

    def count_tokens(self, text: str) -> int:
        """Returns the number of words."""
        return len(text.split())


@pytest.fixture
def engines(repository: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, KnowingEngine]:
    """Replaces the engines before and after tuning with fakes, which a test may change."""
    made = {"before": KnowingEngine(repository, 0.3), "after": KnowingEngine(repository, 0.9)}

    def engine(_base: TunedBase, _device: torch.device, adapters: AdapterStore | None = None) -> KnowingEngine:
        return made["before" if adapters is None else "after"]

    monkeypatch.setattr(TunedBase, "engine", engine)
    return made


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """An empty store."""
    return AdapterStore(folder=tmp_path / "data" / "adapters")


@pytest.fixture
def make_tuner(base: Path, repository: Path, store: AdapterStore) -> MakeTuner:
    """Returns a function that makes the smallest tuning that learns; keywords override its settings."""

    def make(
        *,
        minutes: float = 2.0,
        clock: WorkClock | None = None,
        report: Report = lambda _percent, _line: None,
    ) -> Tuner:
        found = read_repository(repository, lambda _path, _head: None, lambda names: [0.0] * len(names))
        config = replace(
            tune_config(rank=4, seed=0),
            samples=SampleConfig(holes=6, window_characters=320, block_tokens=40, suffix_tokens=12),
            optimizer=OptimizerConfig(rate=2e-2, average_decay=0.5, merge_steps=2),
            schedule=Schedule(warmup_steps=2, cooldown_share=0.2),
            evaluation=EvaluationConfig(documents=1, holes=2),
            save_s=10.0,
        )
        return Tuner(
            canonical_root(repository),
            FileSplit.of(found),
            TunedBase.of(base),
            config,
            store=store,
            minutes=minutes,
            device=torch.device("cpu"),
            clock=work_clock() if clock is None else clock,
            now=lambda: NOW,
            report=report,
        )

    return make
