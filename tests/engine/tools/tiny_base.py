"""What trainings of a tiny Llama share: its file, and arithmetic that is the same on every processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.llama_checkpoints import SPECIAL, LlamaCheckpoint, alphabet, make_llama, write_llama_gguf

MARKS = ["<|endoftext|>", *SPECIAL[1:6], "<filename>", *SPECIAL[7:]]


@contextmanager
def one_thread_in_full_precision(monkeypatch: pytest.MonkeyPatch, *modules: str) -> Iterator[None]:
    """One thread, since the tensors are tiny, and float32 in these modules, whichever format is faster here."""
    for module in modules:
        monkeypatch.setattr(f"dgemma_engine.{module}.weight_dtype", lambda _device: torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_tiny_base(folder: Path, marks: list[str], **config: Any) -> Path:
    """Writes a GGUF file whose vocabulary has special tokens; returns its path."""
    checkpoint: LlamaCheckpoint = make_llama(folder, spread=0.1, **config)
    return write_llama_gguf(checkpoint.gguf, checkpoint.reference, tokenizer__ggml__tokens=[*marks, *alphabet(), "de"])
