"""What `eval` writes and `compare` reads: one line of JSON per hole, and the published result by itself."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from dgemma_engine.errors import EngineError, FormatError
from dgemma_engine.tools.evaluation.holes.rows import read_rows
from dgemma_engine.tools.evaluation.judgement import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a comparison needs of a judgement."""

    exact: float
    similarity: float


class ResultFile:
    """Takes judgements as they are made: an evaluation that is interrupted keeps what it has.

    Args:
        file: open for text; None takes nothing.
    """

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    def add(self, judgement: Judgement) -> None:
        """Writes one line.

        Raises:
            EngineError: it cannot be written.
        """
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(asdict(judgement)) + "\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(Path(self._file.name), error) from error


@contextmanager
def open_results(path: Path | None) -> Generator[ResultFile]:
    """Opens a new file of results, or none.

    Raises:
        EngineError: it cannot be written.
    """
    if path is None:
        yield ResultFile(None)
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        yield ResultFile(file)


def require_writable(path: Path) -> None:
    """Makes sure that a file can be written later; makes it if it is missing.

    Raises:
        EngineError: it cannot be written.
    """
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise _unwritable(path, error) from error


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Writes the published result.

    Raises:
        EngineError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def read_results(path: Path) -> dict[str, Result]:
    """Reads what `dgemma-engine eval --out` wrote, by task id.

    Raises:
        FormatError: the message names file, line, field and remedy.
    """
    results: dict[str, Result] = {}
    for row in read_rows(path):
        task_id = row.text("task_id")
        if task_id in results:
            raise FormatError(f"{row.where}: task_id {task_id!r} stands in the file twice; run the evaluation again")
        results[task_id] = Result(exact=row.number_of("exact"), similarity=row.number_of("similarity"))
    if not results:
        raise FormatError(f"{path}: holds no result; write some with: dgemma-engine eval HOLES --out FILE.jsonl")
    return results


def _unwritable(path: Path, error: OSError) -> EngineError:
    return EngineError(f"{path}: cannot be written ({error.strerror or error}); choose another file")
