"""A small random Llama with the special tokens of a task's adapter, and rows of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.tools.tiny_base import one_thread_in_full_precision, write_tiny_base
from tests.llama_checkpoints import SPECIAL

MARKS = ["<|endoftext|>", *SPECIAL[1:6], "<filename>", *SPECIAL[7:15], "<empty_output>"]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See `one_thread_in_full_precision`."""
    with one_thread_in_full_precision(monkeypatch, "tools.adaptation.task.canvas_base", "tools.tasks.task_model"):
        yield


@pytest.fixture(scope="session")
def marked_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file whose vocabulary has the special tokens."""
    return write_tiny_base(tmp_path_factory.mktemp("base"), MARKS)
