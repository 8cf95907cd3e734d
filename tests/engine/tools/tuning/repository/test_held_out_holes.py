from __future__ import annotations

from collections import Counter

from dgemma_engine.tools.evaluation.holes.source_files import SourceFile
from dgemma_engine.tools.tuning.repository.held_out_holes import MAX_HOLES, held_out_holes

from tests.engine.tools.tuning.conftest import source


def files(count: int) -> list[SourceFile]:
    return [
        SourceFile(name=f"{number}.py", path=f"a/{number}.py", language="python", text=source(number) * 3)
        for number in range(count)
    ]


def test_kinds_take_turns_and_holes_differ() -> None:
    samples = held_out_holes(files(12), seed=0)
    assert len(samples) == len({sample.hole for sample in samples}) == MAX_HOLES
    assert Counter(sample.task.kind for sample in samples[:50]) == {"rest": 20, "line": 20, "multiline": 10}
    assert len({sample.file for sample in samples[:50]}) == 12
    for sample in samples:
        assert sample.task.filled(sample.task.middle) in {file.text for file in files(12)}


def test_same_files_and_seed_give_the_same_holes() -> None:
    assert held_out_holes(files(8), seed=0) == held_out_holes(files(8), seed=0)
    assert held_out_holes(files(8), seed=0) != held_out_holes(files(8), seed=1)


def test_few_lines_give_few_holes() -> None:
    short = [SourceFile(name="a.py", path="a.py", language="python", text="import one\nvalue = one.two(3)\n")]
    assert 0 < len(held_out_holes(short, seed=0)) < 40
