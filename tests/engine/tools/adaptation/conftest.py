"""A small random Llama with the special tokens of SmolLM2, and a corpus of invented packages in two languages."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dgemma_engine.families.llama.adapter import Adapter
from dgemma_engine.tools.adaptation.adapted_base import AdaptedBase
from dgemma_engine.tools.adaptation.config import AdaptConfig, EvaluationConfig, OptimizerConfig, SampleConfig
from dgemma_engine.tools.adaptation.sources import AdaptSources
from dgemma_engine.tools.adaptation.trainer import AdaptTrainer
from dgemma_engine.tools.corpus.source_lines import SourceCorpus, SourceLine, write_corpus
from dgemma_engine.tools.training.optimization.schedule import Schedule

from tests.engine.tools.tiny_base import MARKS, one_thread_in_full_precision, write_tiny_base

# Held out by their names: `tools.corpus.held_out`.
HELD_OUT = {"python": "package-25", "go": "package-42"}

MakeTrainer = Callable[..., AdaptTrainer]


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See `one_thread_in_full_precision`."""
    with one_thread_in_full_precision(monkeypatch, "tools.adaptation.adapted_base"):
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file whose vocabulary has the special tokens of an adapter."""
    return write_tiny_base(tmp_path_factory.mktemp("base"), MARKS, max_position_embeddings=2_048)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus file with both parts in both languages."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl.gz"
    names = {lang: [held_out, *(f"package-{number}" for number in (1, 2, 3))] for lang, held_out in HELD_OUT.items()}
    write_corpus(path, [source(lang, name, number) for lang in names for name in names[lang] for number in range(3)])
    return path


def source(lang: str, package: str, number: int) -> SourceLine:
    """A file of small functions."""
    draw = random.Random(f"{lang} {package} {number}")
    words = ["".join(draw.choices("abcd", k=3)) for _ in range(24)]
    if lang == "python":
        lines = [
            f"def {a}(x, y):\n    {b} = x + y\n    return {b}[0]\n\n"
            for a, b in zip(words[::2], words[1::2], strict=True)
        ]
    else:
        lines = [
            f"func {a}(x int) int {{\n\t{b} := x\n\treturn {b}\n}}\n\n"
            for a, b in zip(words[::2], words[1::2], strict=True)
        ]
    return SourceLine(lang=lang, name=f"{words[0]}.{lang[:2]}", package=package, licence="MIT", text="".join(lines))


@pytest.fixture
def config() -> AdaptConfig:
    """The smallest run that lowers the loss."""
    return AdaptConfig(
        rank=4,
        samples=SampleConfig(holes=4, window_characters=320, block_tokens=40, suffix_tokens=12, python_weight=1.0),
        optimizer=OptimizerConfig(rate=2e-2, average_decay=0.5, merge_steps=2),
        schedule=Schedule(warmup_steps=2, cooldown_share=0.0),
        evaluation=EvaluationConfig(documents=4, holes=4),
        report_s=1.0,
        save_s=2.0,
        evaluate_s=3.0,
    )


class Clock:
    """A clock that advances by one second at each reading."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.fixture
def make_trainer(config: AdaptConfig, base: Path, corpus: Path, tmp_path: Path) -> MakeTrainer:
    """Returns a function that makes a trainer; keywords override the configuration and the paths."""

    def make(
        *,
        out: Path = tmp_path / "run",
        base: Path = base,
        corpus: Path = corpus,
        beneath: Adapter | None = None,
        **changed: object,
    ) -> AdaptTrainer:
        run = replace(config, **changed)  # pyright: ignore[reportArgumentType]
        device = torch.device("cpu")
        sources = AdaptSources.of_corpus(SourceCorpus.load(corpus), python_weight=run.samples.python_weight)
        adapted = AdaptedBase(base, rank=run.rank, device=device, seed=run.seed, beneath=beneath)
        return AdaptTrainer(
            run, base=adapted, sources=sources, out=out, device=device, clock=Clock(), report=lambda _line: None
        )

    return make


@pytest.fixture
def adapted(base: Path, config: AdaptConfig) -> AdaptedBase:
    """The base merged with factors that change its outputs."""
    adapted = AdaptedBase(base, rank=config.rank, device=torch.device("cpu"), seed=0)
    generator = torch.Generator().manual_seed(1)
    for tensor in adapted.factors.values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
        tensor.requires_grad_()
    adapted.merge(adapted.factors)
    return adapted
