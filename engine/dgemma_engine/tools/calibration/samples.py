"""Holes with known middles from what a command line names: source files, folders, a corpus, hole files.

The same seed and the same files give the same holes. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random

from dgemma_engine.errors import FormatError, WrongUsage
from dgemma_engine.tools.corpus.stable_hash import stable_hash
from dgemma_engine.tools.evaluation.holes.cutting import HoleCutter
from dgemma_engine.tools.evaluation.holes.hole_files import read_tasks
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind
from dgemma_engine.tools.evaluation.holes.source_files import SourceFile, read_sources
from dgemma_engine.tools.evaluation.holes.task import PYTHON, Task

_HOLE_FILES = (".jsonl", ".jsonl.gz", ".parquet")
_PYTHON_SUFFIXES = frozenset({".py", ".pyi"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledHole:
    """One hole.

    Attributes:
        hole: names it; unique.
        file: key of the file it was cut from: a hash of its text.
        task: question and truth.
    """

    hole: str
    file: int
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What a calibration is made on.

    Attributes:
        holes: different from each other.
        num_files_at_hand: files that holes could have come from.
    """

    holes: tuple[SampledHole, ...]
    num_files_at_hand: int

    @property
    def num_files(self) -> int:
        """Files that a hole did come from."""
        return len({sample.file for sample in self.holes})


def draw_samples(
    paths: Sequence[Path], *, kinds: Sequence[HoleKind], count: int, globs: Sequence[str], seed: int
) -> Samples:
    """Cuts holes into source files, adds those of hole files, and draws from all of them.

    Args:
        paths: source files, source trees, corpora (their held-out split) and hole files, by their suffix.
        kinds: what is cut out of source files; hole files are taken as they are.
        count: most holes.
        globs: which files of a source tree to take.
        seed: decides all draws.

    Raises:
        EngineError: a path cannot be used; the message names it.
    """
    sources: dict[int, SourceFile] = {}
    holes: dict[tuple[str, str], SampledHole] = {}
    files: set[int] = set()
    for path in paths:
        if path.name.endswith(_HOLE_FILES):
            given = _given(path)
            files.update(sample.file for sample in given)
            holes.update(((sample.task.prefix, sample.task.suffix), sample) for sample in given)
        else:
            # A file that is named twice, or lies in two trees, gives its holes once.
            for file in _sources(path, globs):
                sources.setdefault(stable_hash(file.text), file)
    files.update(sources)
    if sources:
        cutter = HoleCutter(list(sources.values()))
        for kind, share in _shares(count, kinds):
            for task in cutter.cut(kind, share, seed):
                sample = SampledHole(hole=task.task_id, file=_whole(task), task=task)
                holes.setdefault((task.prefix, task.suffix), sample)
    found = list(holes.values())
    drawn = sorted(Random(seed).sample(range(len(found)), min(count, len(found))))
    return Samples(holes=tuple(found[index] for index in drawn), num_files_at_hand=len(files))


def _given(path: Path) -> list[SampledHole]:
    """Returns the holes of a file but for empty ones, which no candidate can be right for."""
    # The holes of one file may each carry only a part of it: then its path says that they belong together.
    keys: dict[str, int] = {}
    samples: list[SampledHole] = []
    for task in read_tasks(path):
        if task.middle.strip():
            file = keys.setdefault(task.path, _whole(task)) if task.path else _whole(task)
            samples.append(SampledHole(hole=f"{path}:{task.task_id}", file=file, task=task))
    return samples


def _whole(task: Task) -> int:
    return stable_hash(task.filled(task.middle))


def _sources(path: Path, globs: Sequence[str]) -> list[SourceFile]:
    if path.is_dir():
        # Trees may hold files of the same name; a hole is named by its file.
        return [replace(file, name=f"{path}/{file.name}") for file in read_sources(path, globs)]
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise WrongUsage(f"{path}: no such file; name source files, folders, a corpus or hole files") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}); name another file") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({error.reason}); convert it or leave it out") from error
    if not text.strip() or "\0" in text:
        raise FormatError(f"{path}: is empty or no text; leave it out")
    language = PYTHON if path.suffix in _PYTHON_SUFFIXES else ""
    return [SourceFile(name=str(path), path=path.name, language=language, text=text)]


def _shares(count: int, kinds: Sequence[HoleKind]) -> list[tuple[HoleKind, int]]:
    """Deals holes to kinds: one line is asked for about twice as often as several."""
    parts = [1 if kind is HoleKind.MULTILINE else 2 for kind in kinds]
    ends = [count * sum(parts[:number]) // sum(parts) for number in range(len(parts) + 1)]
    return [(kind, end - start) for kind, (start, end) in zip(kinds, pairwise(ends), strict=True)]
