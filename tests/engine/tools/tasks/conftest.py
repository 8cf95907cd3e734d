"""A small random DiffusionGemma that takes tasks, and a Llama of the same size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion.sampler import EntropyBound, Sampler, StableAndConfident, TemperatureSchedule, UniformNoise
from dgemma_engine.model.ops import Ops
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.tasks.task_model import TaskModel
from dgemma_engine.tools.tasks.task_tokens import TaskTokenizer

from tests.llama_checkpoints import byte_tokenizer

START, BLANK = 1, 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Uses one thread, since the tensors are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def task_model(make_checkpoint: Callable[..., Any]) -> TaskModel:
    """A DiffusionGemma whose predictions are sharp enough that some tokens are accepted at each step."""
    checkpoint = make_checkpoint(seed=3, spread=0.1)
    with torch.no_grad():
        checkpoint.reference.model.decoder.embed_tokens.weight.mul_(3)
        checkpoint.reference.model.decoder.norm.weight.mul_(4)
    checkpoint.reference.save_pretrained(checkpoint.folder)
    model = load_model(checkpoint.folder, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)
    tokenizer = Tokenizer(byte_tokenizer())
    return TaskModel(
        model=model,
        tokenizer=TaskTokenizer(tokenizer, start_id=START, blank_id=BLANK),
        sampler=Sampler(
            num_steps=12,
            schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
            acceptance=EntropyBound(bound=2.0),
            noise=UniformNoise(vocab_size=320),
            stop=StableAndConfident(num_earlier=1, confidence=0.5),
        ),
        suppressed_ids=tokenizer.special_ids,
        canvas_tokens=24,
        context_tokens=64,
    )
