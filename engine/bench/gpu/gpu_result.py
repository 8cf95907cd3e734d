"""One report file per card: every case with its state, its rows or its error, written atomically after each change.

A case is named by part, name and format. A later run replaces the cases that it measures again and keeps the others, so
that short runs add up; each case carries the commit, versions and date that it was measured with. Sections that
readers want (`results`, `failed`, `left_out`) are derived from the cases at each write.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
FIXED, RATIOS = "fixed steps", "transformers_ms_per_step_over"
# Exit codes of a part: a case ran past its limit; the device fails every call after a failed case.
HUNG, BROKEN = 70, 71
MESSAGE_CHARACTERS = 4_000
# Seconds after which a case ends its process.
CASE_S = 60.0


@dataclass(slots=True, kw_only=True)
class Report:
    """The report of one card.

    Attributes:
        stamp: `gpu`, `torch`, `triton`, `commit` and `date` of what is measured now.
        run: identifies one run of the driver: a restarted part skips the cases of the same run.
        path: the file; None writes nothing.
        resume: whether cases that passed with the same stamp, the date aside, are skipped too.
        case_s: seconds that one case may take; 0 sets no limit.
        is_broken: whether the device can run nothing more after a failed case.
        cases: by key, in the order of their first run.
    """

    stamp: dict[str, Any]
    run: str = ""
    path: Path | None = None
    resume: bool = False
    case_s: float = 0.0
    is_broken: Callable[[], bool] = lambda: False
    cases: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    _part: str = ""
    _more: dict[str, Any] = field(default_factory=dict[str, Any])

    def read(self) -> None:
        """Adds the cases of the file, if there is one and it is of this card.

        Raises:
            ValueError: the file is no report.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.cases = content["cases"] if content["gpu"] == self.stamp["gpu"] else {}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is no GPU report ({error}): remove it or choose another --out") from error

    def begin(self, part: str) -> None:
        """Names the part that the next cases belong to."""
        self._part = part

    def left(self, names: Sequence[str], form: str = "") -> list[str]:
        """Returns the cases of this part that still have to run."""
        return [name for name in names if not self._is_done(self._key(name, form))]

    def guard(self, case: str, form: str, run: Callable[[], Rows], *, always: bool = False) -> bool:
        """Runs one case, unless it is done, and keeps its rows or its error; returns whether it passed.

        Args:
            case: its name within the part.
            form: the weights' format; may be empty.
            run: measures, and returns rows.
            always: run it even when it is done: it makes what other cases need.

        Raises:
            SystemExit: it failed and the device is broken; the process must end.
        """
        key = self._key(case, form)
        if not always and self._is_done(key):
            return self.cases[key]["state"] == "passed"
        began, self._more = time.monotonic(), {}
        self._set(key, case, form, state="running")
        watchdog = threading.Timer(self.case_s or 1e6, self._expire, (key, case, form, threading.get_ident()))
        watchdog.daemon = True
        watchdog.start()
        try:
            rows = run()
        except Exception as error:  # a first run on a card may fail in unforeseen ways: the other cases go on
            watchdog.cancel()
            self._set(key, case, form, state="failed", message=f"{type(error).__name__}: {error}", more=self._more)
            if self.is_broken():
                raise SystemExit(BROKEN) from error
            return False
        finally:
            watchdog.cancel()
            gc.collect()
        seconds = round(time.monotonic() - began, 1)
        self._set(key, case, form, state="passed", rows=rows, more=self._more, seconds=seconds)
        print(f"{key}: {seconds} s", file=sys.stderr, flush=True)
        return True

    def keep(self, name: str, value: Any) -> None:
        """Stores a value that fits no row, with the case that runs now."""
        self._more[name] = value

    def fail(self, case: str, form: str, message: str) -> None:
        """Records the failure of a case."""
        self._set(self._key(case, form), case, form, state="failed", message=message)

    def leave_out(self, case: str, form: str, reason: str) -> None:
        """Records that a case does not run here; an earlier result stays."""
        key = self._key(case, form)
        if self.cases.get(key, {}).get("state") != "passed":
            self._set(key, case, form, state="left out", message=reason)

    def end_running(self, message: str) -> int:
        """Records the failure of the cases that their process left running; returns their number."""
        running = [(key, case) for key, case in self.cases.items() if case["state"] == "running"]
        for key, case in running:
            self._set(key, case["case"], case["format"], state="failed", message=message, part=case["part"])
        return len(running)

    def drop(self, case: str) -> None:
        """Removes a case of this part, if there is one."""
        if self.cases.pop(self._key(case, ""), None) is not None:
            self.save()

    def num_done(self) -> int:
        """Returns how many cases of this run have ended."""
        return sum(case["run"] == self.run and case["state"] != "running" for case in self.cases.values())

    def whole(self) -> dict[str, Any]:
        """Returns the content of the file."""
        results = [dict(row) for case in self.cases.values() if case["state"] == "passed" for row in case["rows"]]
        more: dict[str, Any] = {}
        for case in self.cases.values():
            for name, value in case["more"].items():
                more[name] = {**more.get(name, {}), **value} if isinstance(value, dict) else value
        for row in results:
            if row["case"] == FIXED and row["format"] in more.get(RATIOS, {}):
                row["ratio_to_transformers"] = more[RATIOS][row["format"]]
        return {
            "benchmark": "gpu",
            **self.stamp,
            "results": results,
            "failed": self._those("failed"),
            "left_out": self._those("left out"),
            **more,
            "cases": self.cases,
        }

    def save(self) -> None:
        """Writes the file; a reader finds the old content or the new one, never a part of it."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(self.whole(), indent=1) + "\n", encoding="utf-8")
        fresh.replace(self.path)

    def _key(self, case: str, form: str) -> str:
        return " ".join(word for word in (f"{self._part}:", case, form) if word)

    def _is_done(self, key: str) -> bool:
        case = self.cases.get(key)
        if case is None or case["state"] == "running":
            return False
        if case["run"] == self.run:
            return True
        same = all(case["stamp"][name] == value for name, value in self.stamp.items() if name != "date")
        # All changed trees of one commit have the same name.
        is_named = self.stamp["commit"] != "unknown" and not self.stamp["commit"].endswith("-dirty")
        return self.resume and case["state"] == "passed" and same and is_named

    def _set(self, key: str, case: str, form: str, *, state: str, part: str = "", **values: Any) -> None:
        entry: dict[str, Any] = {"part": part or self._part, "case": case, "format": form, "state": state}
        entry |= {"run": self.run, "stamp": self.stamp, "seconds": None, "message": "", "rows": [], "more": {}}
        message = values.pop("message", "")[:MESSAGE_CHARACTERS]
        self.cases[key] = entry | {"message": message} | values
        if message:
            print(f"{state}: {key}: {message}", file=sys.stderr, flush=True)
        self.save()

    def _those(self, state: str) -> Rows:
        return [
            {name: case[name] for name in ("part", "case", "format", "message")}
            for case in self.cases.values()
            if case["state"] == state
        ]

    def _expire(self, key: str, case: str, form: str, thread: int) -> None:
        """Records where a case hangs, and ends the process: a call into the driver cannot be interrupted."""
        frame = sys._current_frames().get(thread)
        stack = "".join(traceback.format_stack(frame)[-6:])
        self._set(key, case, form, state="failed", message=f"ended after {self.case_s:.0f} s at\n{stack}")
        os._exit(HUNG)
