"""Holes drawn from the sources that are named on the command line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from dgemma_engine.errors import EngineError, FormatError, WrongUsage
from dgemma_engine.tools.calibration.samples import Samples, draw_samples
from dgemma_engine.tools.corpus.corpus import build_corpus
from dgemma_engine.tools.corpus.sources import Package
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind

KINDS = (HoleKind.LINE, HoleKind.REST, HoleKind.MULTILINE)
HOLE = {
    "task_id": "a",
    "kind": "mine",
    "path": "",
    "language": "python",
    "prefix": "x = ",
    "suffix": "\n",
    "middle": "1",
}


def draw(*paths: Path, kinds: Sequence[HoleKind] = KINDS, count: int = 50, seed: int = 0) -> Samples:
    return draw_samples(paths, kinds=kinds, count=count, globs=["*.py"], seed=seed)


def hole_file(path: Path, *changes: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(HOLE | change) + "\n" for change in changes), encoding="utf-8")
    return path


def test_kinds_get_their_shares_and_every_hole_its_file(tree: Path) -> None:
    samples = draw(tree)
    assert Counter(sample.task.kind for sample in samples.holes) == {"line": 20, "rest": 20, "multiline": 10}
    assert samples.num_files_at_hand == 12
    assert samples.num_files == len({sample.task.path for sample in samples.holes})
    assert len({sample.hole for sample in samples.holes}) == 50
    for sample in samples.holes:
        assert sample.task.filled(sample.task.middle) == (tree / sample.task.path).read_text()


def test_same_seed_same_holes(tree: Path) -> None:
    assert draw(tree) == draw(tree)
    assert draw(tree, seed=1).holes != draw(tree).holes


def test_a_file_named_twice_gives_its_holes_once(tree: Path) -> None:
    path = tree / "package" / "aname.py"
    twice = draw(path, path, tree)
    assert twice.num_files_at_hand == 12
    questions = [(sample.task.prefix, sample.task.suffix) for sample in twice.holes]
    assert len(questions) == len(set(questions))


def test_a_single_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    for name, language in (("a.py", "python"), ("b.go", "")):
        (tmp_path / name).write_text("first = compute(1)\nsecond = compute(2)\n")
        samples = draw(tmp_path / name, kinds=[HoleKind.LINE])
        assert {sample.task.middle for sample in samples.holes} == {"first = compute(1)", "second = compute(2)"}
        assert {(sample.task.path, sample.task.language) for sample in samples.holes} == {(name, language)}


def test_a_corpus_gives_its_held_out_split(tmp_path: Path) -> None:
    packages: list[Package] = []
    for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta"):
        path = tmp_path / f"{name}.py"
        path.write_text("".join(f"def {name}_{i}(x):\n    return {name}({i}, x)\n\n\n" for i in range(40)))
        packages.append(Package(name=name, version="1.0", licence="MIT", paths=(path,)))
    report = build_corpus(packages, tmp_path / "corpus", vocab_size=300, held_out_share=0.3)
    held_out = {entry.package for entry in report.entries if entry.split == "held_out"}
    samples = draw(tmp_path / "corpus")
    assert samples.num_files_at_hand == len(held_out)
    for sample in samples.holes:
        assert sample.task.filled(sample.task.middle).partition("_")[0].removeprefix("def ") in held_out


def test_hole_files_are_read_unchanged_except_for_empty_middles(tmp_path: Path) -> None:
    path = hole_file(tmp_path / "h.jsonl", {}, {"task_id": "b", "middle": " "}, {"task_id": "c", "prefix": "y = "})
    samples = draw(path)
    assert [(sample.hole, sample.task.kind) for sample in samples.holes] == [
        (f"{path}:a", "mine"),
        (f"{path}:c", "mine"),
    ]
    assert samples.num_files == samples.num_files_at_hand == 2


def test_holes_of_one_path_or_of_one_text_count_as_one_file(tmp_path: Path, tree: Path) -> None:
    parts = hole_file(tmp_path / "p.jsonl", {"path": "a.py"}, {"task_id": "b", "path": "a.py", "prefix": "other = "})
    assert draw(parts).num_files == 1
    text = (tree / "package" / "aname.py").read_text()
    whole = {"prefix": text[:20], "middle": text[20:30], "suffix": text[30:]}
    assert draw(hole_file(tmp_path / "w.jsonl", whole), tree, count=500).num_files_at_hand == 12


def test_more_holes_than_wanted_are_drawn_from_all_sources(tmp_path: Path, tree: Path) -> None:
    given = hole_file(tmp_path / "h.jsonl", *({"task_id": str(i), "prefix": f"x{i} = "} for i in range(40)))
    kinds = Counter(sample.task.kind for sample in draw(given, tree, count=40).holes)
    assert sum(kinds.values()) == 40
    assert kinds["mine"] and kinds["line"] and kinds["rest"] and kinds["multiline"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.py", None, "no such file; name source files"),
        ("gone.jsonl", None, "no such file; name another file"),
        ("latin.py", b"# caf\xe9\n", "is not UTF-8"),
        ("empty.py", b" \n", "is empty or no text"),
        ("nul.py", b"x = 1\0", "is empty or no text"),
        ("bad.jsonl", b"{}\n", "is no hole"),
    ],
)
def test_unusable_source_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError if content is not None else WrongUsage, match=message) as caught:
        draw(tmp_path / name)
    assert name in str(caught.value)


def test_a_folder_without_source_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"holds no usable file like \*.py"):
        draw(tmp_path)
