from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.evaluation.holes.source_files import SourceFile
from dgemma_engine.tools.tuning.repository.file_split import MIN_FILES, FileSplit
from dgemma_engine.tools.tuning.repository.repository_files import RepositoryFiles


def files(count: int, *, length: int = 400) -> list[SourceFile]:
    return [
        SourceFile(name=f"f{number}.py", path=f"a/f{number}.py", language="python", text=f"{number:03}" + "x" * length)
        for number in range(count)
    ]


def split(found: list[SourceFile], times: list[float] | None = None, **left_out: int) -> FileSplit:
    changed_s = tuple(times or [0.0] * len(found))
    return FileSplit.of(RepositoryFiles(files=tuple(found), changed_s=changed_s, left_out=left_out))


@pytest.mark.parametrize(("count", "held_out"), [(MIN_FILES, 8), (60, 10), (600, 48)])
def test_parts_share_no_file_and_hold_all_files(count: int, held_out: int) -> None:
    parts = split(files(count))
    paths = [file.path for file in parts.held_out], [file.path for file in parts.train]
    assert len(paths[0]) == held_out and sorted(paths[0] + paths[1]) == sorted(file.path for file in files(count))


def test_split_depends_on_paths_alone() -> None:
    one, other = split(files(40)), split([*reversed(files(40, length=900))], [float(n) for n in range(40)])
    assert {file.path for file in one.held_out} == {file.path for file in other.held_out}
    assert split(files(40)).sha256 == one.sha256 != split(files(41)).sha256


def test_too_few_files_are_counted_with_the_reasons_of_others() -> None:
    short = files(3, length=10)
    with pytest.raises(TrainingError) as caught:
        split([*files(MIN_FILES - 1), *short], generated=7, private=2)
    assert str(caught.value) == (
        f"{MIN_FILES - 1} source files can be learnt from (7 generated, 2 private, 3 shorter than 300 characters left "
        f"out), {MIN_FILES} are needed; tune a larger folder"
    )


def test_repository_that_is_all_generated_is_refused() -> None:
    message = re.escape("0 source files can be learnt from (500 generated left out), 24 are needed")
    with pytest.raises(TrainingError, match=message):
        split([], generated=500)


def test_files_changed_later_are_drawn_more_often() -> None:
    parts = split(files(80), [float(number) for number in range(80)])
    assert list(parts.weights) == sorted(parts.weights)
    assert 2.5 < parts.weights[-1] / parts.weights[0] < 3


def test_files_are_drawn_by_their_length_up_to_24_000_characters() -> None:
    found = [replace(file, text="x" * 400 * number) for number, file in enumerate(files(80), start=1)]
    parts = split(found)
    assert max(len(file.text) for file in parts.train) > 24_000
    shares = zip(parts.train, parts.weights, strict=True)
    assert len({weight / min(len(file.text), 24_000) for file, weight in shares}) == 1


def test_files_of_one_commit_are_drawn_alike() -> None:
    assert len(set(split(files(40), [7.0] * 40).weights)) == 1


def test_trainer_draws_from_its_part_as_often_as_the_weights_say() -> None:
    parts = split(files(80), [float(number) for number in range(80)])
    sources, random = parts.sources(), Random(0)
    drawn = Counter(sources.train(random).package for _ in range(20_000))
    assert drawn.keys() == {file.path for file in parts.train}
    total = sum(parts.weights)
    for file, weight in zip(parts.train, parts.weights, strict=True):
        assert abs(drawn[file.path] / 20_000 - weight / total) < 0.006
    held_out = {sources.held_out(random).package for _ in range(2_000)}
    assert held_out == {file.path for file in parts.held_out}
    line = sources.train(random)
    assert line.name == line.package.removeprefix("a/") and line.lang == "python"
