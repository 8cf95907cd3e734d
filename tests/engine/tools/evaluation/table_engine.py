"""A fake engine that answers from a table, and records its requests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.protocol.messages import Context, Finish, Infill
from dgemma_engine.scheduling.timing import Cancel


@dataclass
class TableEngine:
    """Answers a hole by the end of its prefix; a token is a word."""

    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    model_name: str = "table"
    device: str = "cpu"
    asked: list[tuple[Context, InfillOptions]] = field(default_factory=list[tuple[Context, InfillOptions]])

    def infill(self, context: Context, cancel: Cancel, *, options: InfillOptions) -> Infill:
        assert cancel.finish is None
        self.asked.append((context, options))
        text = next((text for end, text in self.answers.items() if context.prefix.endswith(end)), "")
        finish = Finish.STABLE if text else Finish.EMPTY
        return Infill(text=text, finish=finish, score=0.5 if text else 0.0, steps=3, forwards=4)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def install(engine: TableEngine | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `Engine.load` return this engine for any folder, or fail for None."""

    class Engine:
        @staticmethod
        def load(_path: Path, *, device: str, report: Callable[[int, str], None]) -> TableEngine:
            assert engine is not None
            report(100, f"ready on {device}")
            return engine

    module = ModuleType("dgemma_engine.infill.engine")
    monkeypatch.setattr(module, "Engine", Engine, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
