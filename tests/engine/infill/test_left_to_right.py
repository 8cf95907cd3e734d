"""The second candidate from left to right: where it leaves the first one, and when it is written."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.infill import left_to_right
from dgemma_engine.infill.autoregressive import Forks, Written
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.protocol.messages import Context, Extent
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer
from torch import Tensor

from tests.llama_checkpoints import LlamaCheckpoint, make_llama, write_adapter

BLOCK = Context(
    document="d", prefix="def f(a):\n    ", suffix="\n\nprint(f(1))\n", path="f.py", language="python",
    extent=Extent.BLOCK, max_middle_tokens=8,
)  # fmt: skip
FILL = replace(BLOCK, on_demand=True)
LINE = Context(
    document="d", prefix="def f(a):\n    return ", suffix="\nprint(f(1))\n", path="f.py", max_middle_tokens=8
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory).gguf


def _checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LlamaCheckpoint:
    made = make_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2_048)
    write_adapter(made.gguf, "causal")
    return made


@pytest.fixture
def engine(path: Path) -> Engine:
    return Engine.load(path, device="cpu", report=lambda _percent, _message: None)


def favour(monkeypatch: pytest.MonkeyPatch, engine: Engine, scores: dict[str, float]) -> None:
    """Adds to the logits of tokens, by their text, and to those of the token that ends the middle: ``."""
    tokenizer: Tokenizer = engine._pipeline._tokenizer  # pyright: ignore[reportPrivateUsage]
    ids = {0 if not text else tokenizer.encode(text)[0]: score for text, score in scores.items()}
    logits = PackedLlama.logits

    def biased(model: PackedLlama, hidden_BLD: Tensor) -> Tensor:
        found = torch.zeros_like(logits(model, hidden_BLD))
        found[..., list(ids)] += torch.tensor([*ids.values()])
        return found

    monkeypatch.setattr(PackedLlama, "logits", biased)


def texts(engine: Engine, context: Context, *, cancel: Cancel | None = None, forks: bool = True) -> list[str]:
    """Returns the candidates that the engine wrote, best first."""
    options = InfillOptions(seeds=False, silence=False, forks=forks)
    unhurried = Cancel(deadline_s=1e9, clock=lambda: 0.0)
    return [one.proposal.text for one in engine.ranked(context, cancel or unhurried, options=options)]


def test_second_candidate_takes_the_next_likely_token_and_is_greedy_from_there(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    favour(monkeypatch, engine, {"x": 20.0, "y": 19.0, "z": 10.0})
    first, second = texts(engine, LINE)
    assert (set(first), set(second[1:]), second[0]) == ({"x"}, {"x"}, "y")
    assert texts(engine, LINE, forks=False) == [first]


def test_beginning_that_is_unlikely_is_not_written_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    favour(monkeypatch, engine, {"x": 20.0, "y": 10.0})
    assert len(texts(engine, LINE)) == 1


def test_end_of_the_middle_is_no_other_beginning(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first text without its last token would be shown beside it, and says nothing else."""
    favour(monkeypatch, engine, {"x": 20.0, "": 19.5, "y": 19.0})
    first, second = texts(engine, LINE)
    assert first[0] == "x" and second[0] == "y"


@pytest.mark.parametrize(("context", "said", "num"), [(BLOCK, "x", 2), (FILL, "x", 1), (FILL, " ", 2)])
def test_block_on_demand_has_a_second_candidate_only_if_nothing_is_left_of_the_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, context: Context, said: str, num: int
) -> None:
    """Every middle is one token here, and another one is likely in its place."""
    tokenizer: Tokenizer = engine._pipeline._tokenizer  # pyright: ignore[reportPrivateUsage]
    opening, [first], [other] = tokenizer.encode("    "), tokenizer.encode(said), tokenizer.encode("y")
    begun: list[tuple[int, ...]] = []

    def written(*_args: Any, forced_ids: tuple[int, ...], forks: Forks | None, **_options: Any) -> Pieces[Written]:
        yield
        begun.append(tuple(forced_ids))
        if forks is not None:
            likely_V = torch.zeros(288)
            likely_V[[first, other]] = 20.0
            forks.passed(opening, first, likely_V)
        return Written(ids=[*(forced_ids or (*opening, first))], ended=True, passes=1)

    monkeypatch.setattr(left_to_right, "write", written)
    texts(engine, context)
    assert begun == [(), (*opening, other)][:num]


def test_second_candidate_is_not_begun_without_the_time_that_the_first_took(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    favour(monkeypatch, engine, {"x": 20.0, "y": 19.0})
    encode, num_passes = PackedLlama.encode, count()

    def counted(model: PackedLlama, *args: Any, **options: Any) -> Tensor:
        next(num_passes)
        return encode(model, *args, **options)

    monkeypatch.setattr(PackedLlama, "encode", counted)

    def passes(deadline_s: float, *, forks: bool = True) -> int:
        """Returns the passes of a request whose clock goes a second further whenever it is read."""
        ticks, before = count(), next(num_passes)
        texts(engine, LINE, cancel=Cancel(deadline_s=deadline_s, clock=lambda: next(ticks)), forks=forks)
        read.append(next(ticks))
        return next(num_passes) - before - 1

    read: list[int] = []
    passes(1e6, forks=False)
    alone = passes(1e6, forks=False)
    assert passes(3.0 * read[-1]) > alone
    assert passes(read[1] + 5.0) == alone
