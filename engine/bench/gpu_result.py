"""What a benchmark's cases measured or failed with, kept while others run; parts of it in processes of their own."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of the cases so far.

    Attributes:
        rows: of the cases that ran.
        failed: case, format and message of those that did not.
        more: what has no place in a row.
        path: written after each case, so that what a part measured before it was ended is kept; None writes nothing.
    """

    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    failed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    path: Path | None = None

    def guard(self, case: str, form: str, run: Callable[[], list[dict[str, Any]]]) -> bool:
        """Runs one case and keeps its rows, or what it failed with; returns whether it ran."""
        began = time.monotonic()
        try:
            self.rows += run()
        except Exception as error:  # the first run on a card finds what nobody could see: the other cases go on
            self.fail(case, form, f"{type(error).__name__}: {error}")
            return False
        finally:
            gc.collect()
            self.save()
        print(f"{case} {form}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        return True

    def fail(self, case: str, form: str, message: str) -> None:
        """Keeps what a case failed with."""
        self.failed.append({"case": case, "format": form, "message": message[:2_000]})
        print(f"failed: {case} {form}: {message}", file=sys.stderr, flush=True)

    def save(self) -> None:
        """Writes what there is."""
        if self.path is not None:
            self.path.write_text(json.dumps({"rows": self.rows, "failed": self.failed, "more": self.more}))

    def add(self, saved: dict[str, Any]) -> None:
        """Takes what another process saved."""
        self.rows += saved["rows"]
        self.failed += saved["failed"]
        for key, value in saved["more"].items():
            self.more[key] = {**self.more.get(key, {}), **value} if isinstance(value, dict) else value


def in_process(command: Sequence[str], part: str, path: Path, limit_s: float) -> str | None:
    """Runs a part in a process of its own; returns what went wrong with it."""
    try:
        run = subprocess.run(
            [*command, "--part", part, "--out", str(path)],
            timeout=limit_s,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"ended after {limit_s:.0f} s; cases it had finished are kept"
    print(run.stderr, file=sys.stderr, end="", flush=True)
    return None if run.returncode == 0 else f"exit code {run.returncode}: {run.stderr[-1_000:]}"
