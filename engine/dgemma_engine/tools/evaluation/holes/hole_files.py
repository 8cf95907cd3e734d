"""Hole files in three formats to `Task`s and back: our own, HumanEval-Infilling's, and that of SantaCoder's benchmark.

The fields of the first row decide the format. A hole is asked as an editor would ask it: a line break that ends a
middle stands after the cursor, so it is moved into the suffix (published middles of whole lines include it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from dgemma_engine.errors import FormatError
from dgemma_engine.protocol.messages import Snippet
from dgemma_engine.tools.evaluation.holes.rows import TableRow, read_rows
from dgemma_engine.tools.evaluation.holes.task import PYTHON, Task, UnitTest

_LANGUAGES = {"py": PYTHON, "js": "javascript", "java": "java"}


def read_tasks(path: Path) -> list[Task]:
    """Reads a hole file.

    Args:
        path: `.jsonl`, `.jsonl.gz` or `.parquet`.

    Raises:
        FormatError: the message names file, line, field and remedy.
        EngineUnavailable: a package that reads the file is not installed.
    """
    tasks: dict[str, Task] = {}
    read: Callable[[TableRow], Task] | None = None
    for row in read_rows(path):
        read = read or _reader(row)
        task = _as_an_editor_asks(read(row))
        if task.task_id in tasks:
            raise FormatError(f"{row.where}: task_id {task.task_id!r} stands in the file twice; make it unique")
        tasks[task.task_id] = task
    if not tasks:
        raise FormatError(f"{path}: holds no hole; make some with: dgemma-engine holes DIR --out FILE.jsonl")
    return list(tasks.values())


def to_record(task: Task) -> dict[str, Any]:
    """Returns a task as one JSON-ready row of our own format."""
    record = asdict(task)
    del record["test"]
    if not task.snippets:
        del record["snippets"]
    return record


def _reader(row: TableRow) -> Callable[[TableRow], Task]:
    """Returns what reads rows like this one."""
    names = row.values.keys()
    if names & {"middle", "prefix"}:
        return _own
    if names & {"entry_point", "test"}:
        return _human_eval
    if names & {"prompt", "canonical_solution"}:
        return _santa_coder
    raise FormatError(
        f"{row.where}: is no hole (its fields: {', '.join(sorted(names)) or 'none'}); give task_id, kind, prefix, "
        "suffix and middle, or a file of HumanEval-Infilling or SantaCoder-FIM"
    )


def _own(row: TableRow) -> Task:
    return Task(
        task_id=row.text("task_id"),
        kind=row.text("kind"),
        path=row.text("path"),
        language=row.text("language"),
        prefix=row.text("prefix"),
        suffix=row.text("suffix"),
        middle=row.text("middle"),
        snippets=_snippets(row),
    )


def _snippets(row: TableRow) -> tuple[Snippet, ...]:
    value = row.values.get("snippets") or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in cast(list[object], value)):
        raise FormatError(f"{row.where}: field `snippets` must be a list of objects with path and text; correct it")
    items = (replace(row, values=item) for item in cast(list[dict[str, Any]], value))
    return tuple(Snippet(path=item.text("path"), text=item.text("text")) for item in items)


def _human_eval(row: TableRow) -> Task:
    """Reads github.com/openai/human-eval-infilling; the first part of its ids names the sort of hole."""
    task_id = row.text("task_id")
    return Task(
        task_id=task_id,
        kind=task_id.partition("/")[0],
        language=PYTHON,
        prefix=row.text("prompt"),
        suffix=row.text("suffix"),
        middle=row.text("canonical_solution"),
        test=UnitTest(code=row.text("test"), entry_point=row.text("entry_point")),
    )


def _santa_coder(row: TableRow) -> Task:
    """Reads bigcode/santacoder-fim-task; a name recurs there for every line left out of one program."""
    language = row.text("language")
    return Task(
        task_id=f"{language}/{row.text('name')}/{row.number}",
        kind=language,
        language=_LANGUAGES.get(language, language),
        prefix=row.text("prompt"),
        suffix=row.text("suffix"),
        middle=row.text("canonical_solution"),
    )


def _as_an_editor_asks(task: Task) -> Task:
    middle = task.middle.rstrip("\r\n")
    if middle == task.middle or not middle.strip():
        return task
    return replace(task, middle=middle, suffix=task.middle[len(middle) :] + task.suffix)
