"""`dgemma-engine holes` from the command line, and the files from which it takes holes and snippets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.cli import main
from dgemma_engine.tools.corpus.corpus import build_corpus
from dgemma_engine.tools.corpus.sources import Package
from dgemma_engine.tools.evaluation.holes.hole_files import read_tasks
from dgemma_engine.tools.evaluation.holes.snippets import Neighbours
from dgemma_engine.tools.evaluation.holes.source_files import SourceFile, read_sources


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_sources_are_sorted_and_leave_out_unsuitable_files(tree: Path) -> None:
    files = read_sources(tree, ["*.py"])
    assert [file.name for file in files] == [
        "package/client.py", "package/copy_of_store.py", "package/report.py", "package/server.py",
    ]  # fmt: skip
    assert {file.language for file in files} == {"python"}
    assert [(file.path, file.language) for file in read_sources(tree, ["*.js"])] == [("app.js", "javascript")]


def test_every_kind_gets_its_holes_and_each_is_cut_from_a_file(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "holes.jsonl"
    assert main(["holes", str(tree), "--out", str(out), "--count", "5"]) == 0
    tasks = read_tasks(out)
    kinds = ["line", "rest", "multiline", "syntax", "span", "balanced"]
    assert [task.kind for task in tasks] == [kind for kind in kinds for _ in range(5)]
    for task in tasks:
        assert task.filled(task.middle) == (tree / task.path).read_text(encoding="utf-8")
        assert task.language == "python"
        assert not task.snippets
    assert capsys.readouterr().out.endswith(f"30 holes from 4 files in {out}\n")


def test_same_seed_same_bytes_whatever_else_is_cut(tree: Path, tmp_path: Path) -> None:
    def cut(name: str, *options: str) -> Path:
        assert main(["holes", str(tree), "--out", str(tmp_path / name), "--count", "4", *options]) == 0
        return tmp_path / name

    both = cut("both.jsonl", "--kinds", "line", "span")
    assert both.read_bytes() == cut("again.jsonl", "--kinds", "line", "span").read_bytes()
    assert rows(cut("span.jsonl", "--kinds", "span")) == rows(both)[4:]
    assert rows(cut("other.jsonl", "--kinds", "line", "span", "--seed", "1")) != rows(both)
    packed = cut("both.jsonl.gz", "--kinds", "line", "span")
    assert gzip.decompress(packed.read_bytes()) == both.read_bytes()


def test_fewer_holes_than_requested_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.py").write_text("value = compute()\n" * 15)
    arguments = ["holes", str(tree), "--out", str(tmp_path / "h.jsonl"), "--kinds", "balanced", "line"]
    assert main([*arguments, "--count", "100"]) == 0
    assert "line             15  (no more found)" in capsys.readouterr().out
    assert len(rows(tmp_path / "h.jsonl")) == 15
    assert main([*arguments[:-1], "--count", "100"]) == 1
    assert "no hole of these kinds was found" in capsys.readouterr().err
    assert len(rows(tmp_path / "h.jsonl")) == 15, "the older file is kept"


def test_output_without_the_suffix_of_a_hole_file_is_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = next(tree.glob("*.py"))
    before = source.read_bytes()
    assert main(["holes", str(tree), "--out", str(source)]) == 1
    assert "must end in .jsonl or .jsonl.gz; choose another --out" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_corpus_gives_holes_of_its_held_out_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages: list[Package] = []
    for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta"):
        path = tmp_path / f"{name}.py"
        path.write_text("".join(f"def {name}_{i}(x):\n    return {name}({i}, x)\n\n\n" for i in range(40)))
        packages.append(Package(name=name, version="1.0", licence="MIT", paths=(path,)))
    report = build_corpus(packages, tmp_path / "corpus", vocab_size=300, held_out_share=0.3)
    held_out = {entry.package for entry in report.entries if entry.split == "held_out"}
    out = tmp_path / "holes.jsonl"
    assert main(["holes", str(tmp_path / "corpus"), "--out", str(out), "--count", "20", "--kinds", "line"]) == 0
    tasks = read_tasks(out)
    assert len(tasks) == 20
    for task in tasks:
        assert task.filled(task.middle).partition("_")[0].removeprefix("def ") in held_out
        assert (task.path, task.language) == ("", "python")
    assert main(["holes", str(tmp_path / "corpus"), "--out", str(out), "--snippets", "1"]) == 1
    assert "a corpus keeps no folders" in capsys.readouterr().err


def test_snippets_come_from_neighbours_and_are_windows(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "holes.jsonl"
    assert main(["holes", str(tree), "--out", str(out), "--count", "5", "--kinds", "line", "--snippets", "2"]) == 0
    for task in read_tasks(out):
        assert len(task.snippets) == 2
        for snippet in task.snippets:
            assert snippet.path != task.path
            assert snippet.text in (tree / snippet.path).read_text(encoding="utf-8")
            assert len(snippet.text.splitlines()) <= 60


def test_the_best_window_of_the_most_related_file_comes_last() -> None:
    filler = "".join(f"other_{i} = {i}\n" for i in range(100))
    sources = {
        "a/hole.py": "connect(address)\n",
        "a/near.py": filler + "def connect(address, timeout):\n    pass\n",
        "a/far.py": filler + "address = 1\n",
        "a/none.py": "unrelated = 1\n",
        "b/elsewhere.py": "connect(address)\n",
    }
    files = [SourceFile(name=path, path=path, language="python", text=text) for path, text in sources.items()]
    snippets = Neighbours(files).snippets("a/hole.py", "connect(address", ")\n", 3)
    assert [snippet.path for snippet in snippets] == ["a/far.py", "a/near.py"]
    assert "def connect" in snippets[-1].text
    assert [s.path for s in Neighbours(files).snippets("a/hole.py", "connect(address", ")\n", 1)] == ["a/near.py"]
    assert Neighbours(files).snippets("a/hole.py", "connect", "", 0) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{tmp}/none"], "none: is no folder; name a source tree or a corpus"),
        (["{tree}", "--glob", "*.xyz"], r"holds no usable file like *.xyz; choose others with --glob"),
        (["{tree}", "--out", "{tmp}/none/h.jsonl"], "cannot be written (No such file or directory)"),
    ],
)
def test_faults_are_reported_in_one_line(
    options: list[str], message: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [option.format(tmp=tmp_path, tree=tree) for option in options]
    assert main(["holes", "--out", str(tmp_path / "h.jsonl"), *filled]) == (2 if "is no folder" in message else 1)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("options", [["--count", "0"], ["--count", "x"], ["--seed", "-1"], ["--kinds", "word"]])
def test_wrong_usage_is_exit_code_two(options: list[str], tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["holes", str(tree), "--out", "h.jsonl", *options])
    assert exit_info.value.code == 2
    assert options[1] in capsys.readouterr().err
