"""A small random Llama with the special tokens of a task's adapter, and rows of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.llama_checkpoints import SPECIAL, alphabet, make_llama, write_llama_gguf

MARKS = ["<|endoftext|>", *SPECIAL[1:6], "<filename>", *SPECIAL[7:15], "<empty_output>"]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """float32, whichever format is faster on this processor, and one thread, since the tensors are tiny."""
    for module in ("tools.adaptation.task.canvas_base", "tools.tasks.task_model"):
        monkeypatch.setattr(f"dgemma_engine.{module}.weight_dtype", lambda _device: torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def marked_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file whose vocabulary has the special tokens."""
    checkpoint = make_llama(tmp_path_factory.mktemp("base"), spread=0.1)
    return write_llama_gguf(checkpoint.gguf, checkpoint.reference, tokenizer__ggml__tokens=[*MARKS, *alphabet(), "de"])
